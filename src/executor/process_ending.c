#include "executor/process_ending.h"

static void append_flag(struct buffer *buffer, const char *key, bool flag)
{
    (void)buffer_format(buffer, ", \"%s\": %s", key, flag ? "true" : "false");
}

static const char *state_of(enum outcome_kind kind)
{
    if (kind == OUTCOME_RETRY) {
        return "RETRY";
    }
    return kind == OUTCOME_REVOKED ? "REVOKED" : "FAILURE";
}

void process_ending_append(struct buffer *buffer, const struct outcome *outcome, bool stores,
                           bool has_begun)
{
    (void)buffer_format(buffer, "{\"state\": \"%s\"", state_of(outcome->kind));
    json_append_text_member(buffer, "exc_type", outcome->exc_type);
    json_append_text_member(buffer, "exc_module", outcome->exc_module);
    (void)buffer_append_text(buffer, ", \"exc_message\": ");
    (void)buffer_append(buffer,
                        outcome->exc_message.length > 0 ? outcome->exc_message : BYTES("[]"));
    append_flag(buffer, "stores", stores);
    append_flag(buffer, "has_begun", has_begun);
    (void)buffer_append_byte(buffer, '}');
}
