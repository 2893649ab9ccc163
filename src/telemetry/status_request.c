#include "telemetry/status_request.h"

#include <strings.h>

static bool equals_ignoring_case(struct bytes view, const char *text)
{
    return view.length == strlen(text) && strncasecmp(view.data, text, view.length) == 0;
}

/* Takes the piece before `separator` off the front of `rest`, the separator too. */
static struct bytes take(struct bytes *rest, char separator)
{
    size_t end = bytes_find(*rest, separator);
    struct bytes piece = bytes_of(rest->data, end);
    *rest = bytes_skip(*rest, end + 1);
    return piece;
}

static struct bytes trimmed(struct bytes view)
{
    while (view.length > 0 && (view.data[0] == ' ' || view.data[0] == '\t')) {
        view = bytes_skip(view, 1);
    }
    while (view.length > 0 && strchr(" \t\r", view.data[view.length - 1])) {
        view.length--;
    }
    return view;
}

static int read_request_line(struct bytes line, struct status_request *request)
{
    struct bytes method = take(&line, ' ');
    struct bytes target = take(&line, ' ');
    struct bytes version = trimmed(line);
    if (method.length == 0 || target.length == 0 || target.data[0] != '/') {
        return 400;
    }
    if (!bytes_equal(version, BYTES("HTTP/1.1")) && !bytes_equal(version, BYTES("HTTP/1.0"))) {
        return bytes_starts_with(version, BYTES("HTTP/")) ? 505 : 400;
    }
    request->keeps_alive = bytes_equal(version, BYTES("HTTP/1.1"));
    request->path = take(&target, '?');
    request->is_head = bytes_equal(method, BYTES("HEAD"));
    return request->is_head || bytes_equal(method, BYTES("GET")) ? 0 : 405;
}

/* Returns the refusal that a field leads to, or 0. */
static int read_field(struct bytes line, struct status_request *request)
{
    size_t colon = bytes_find(line, ':');
    struct bytes name = bytes_of(line.data, colon);
    struct bytes value = trimmed(bytes_skip(line, colon + 1));
    if (colon == 0 || colon == line.length || strchr(" \t", line.data[0])) {
        return 400;
    }
    if (equals_ignoring_case(name, "content-length")) {
        return bytes_equal(value, BYTES("0")) ? 0 : 413;
    }
    if (equals_ignoring_case(name, "transfer-encoding")) {
        return 413;
    }
    if (equals_ignoring_case(name, "connection")) {
        request->keeps_alive = (request->keeps_alive && !equals_ignoring_case(value, "close"))
                               || equals_ignoring_case(value, "keep-alive");
    }
    return 0;
}

bool status_request_parse(struct bytes data, struct status_request *ret_request)
{
    const char *end = data.length >= 4 ? memmem(data.data, data.length, "\r\n\r\n", 4) : NULL;
    if (!end) {
        return false;
    }
    *ret_request = (struct status_request){.length = (size_t)(end - data.data) + 4};
    struct bytes head = bytes_of(data.data, ret_request->length - 4);
    int refusal = bytes_find(head, '\0') < head.length ? 400 : 0;
    if (refusal == 0) {
        refusal = read_request_line(take(&head, '\n'), ret_request);
    }
    int fault = 0;
    while (head.length > 0 && fault == 0) {
        fault = read_field(take(&head, '\n'), ret_request);
    }
    ret_request->refusal = fault != 0 ? fault : refusal;
    if (ret_request->refusal != 0 && ret_request->refusal != 405) {
        ret_request->keeps_alive = false;
    }
    return true;
}
