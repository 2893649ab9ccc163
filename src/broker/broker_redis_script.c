#include "broker/broker_redis_script.h"

#include <hiredis/hiredis.h>
#include <openssl/evp.h>
#include <stdio.h>

/* What an element must be: one JSON object that Python's json reads. The strings of nearly every
 * message are plain, so they are emptied by one fast gsub, and the skeletons that are left are
 * few: each is checked once a call. Doubtful is refused. */
#define CHECK_ELEMENT                                                                              \
    "local function are_numbers_right(skeleton)\n"                                                 \
    "  local words = {['true'] = 1, ['false'] = 1, null = 1, NaN = 1, Infinity = 1,\n"             \
    "    ['-Infinity'] = 1}\n"                                                                     \
    "  for word in skeleton:gsub('\"\"', ''):gmatch('[^%s,:{}%[%]]+') do\n"                        \
    "    local whole, rest = word:match('^%-?(%d+)(.*)$')\n"                                       \
    "    rest = rest and rest:gsub('^%.%d+', ''):gsub('^[eE][+-]?%d+', '')\n"                      \
    "    if not words[word] and (not whole or rest ~= '' or whole:find('^0%d')) then\n"            \
    "      return false\n"                                                                         \
    "    end\n"                                                                                    \
    "  end\n"                                                                                      \
    "  return true\n"                                                                              \
    "end\n"                                                                                        \
    "local function is_object(skeleton)\n"                                                         \
    "  return skeleton:find('^%s*{') and pcall(cjson.decode, skeleton)\n"                          \
    "    and are_numbers_right(skeleton)\n"                                                        \
    "end\n"                                                                                        \
    "local characters = {'[\\194-\\223][\\128-\\191]', '\\224[\\160-\\191][\\128-\\191]',\n"       \
    "  '\\237[\\128-\\159][\\128-\\191]', '[\\225-\\236\\238\\239][\\128-\\191][\\128-\\191]',\n"  \
    "  '\\240[\\144-\\191][\\128-\\191][\\128-\\191]',\n"                                          \
    "  '\\244[\\128-\\143][\\128-\\191][\\128-\\191]',\n"                                          \
    "  '[\\241-\\243][\\128-\\191][\\128-\\191][\\128-\\191]'}\n"                                  \
    "local function without_escapes(element)\n"                                                    \
    "  for _, character in ipairs(characters) do\n"                                                \
    "    element = element:gsub(character, 'x')\n"                                                 \
    "  end\n"                                                                                      \
    "  element = element:gsub('\\\\\\\\', 'x'):gsub('\\\\u%x%x%x%x', 'x')\n"                       \
    "    :gsub('\\\\[\"/bfnrt]', 'x')\n"                                                           \
    "  if element:find('[\\\\\\128-\\255]') then\n"                                                \
    "    return nil\n"                                                                             \
    "  end\n"                                                                                      \
    "  for text in element:gmatch('%b\"\"') do\n"                                                  \
    "    if text:find('[%z\\1-\\31]') then\n"                                                      \
    "      return nil\n"                                                                           \
    "    end\n"                                                                                    \
    "  end\n"                                                                                      \
    "  return element\n"                                                                           \
    "end\n"                                                                                        \
    "local skeletons = {}\n"                                                                       \
    "local function is_right(element)\n"                                                           \
    "  if element:find('\\\\', 1, true) or not element:find('^[ -~]*$') then\n"                    \
    "    element = without_escapes(element)\n"                                                     \
    "  end\n"                                                                                      \
    "  local skeleton = element and element:gsub('%b\"\"', '\"\"') or ''\n"                        \
    "  if skeletons[skeleton] == nil then\n"                                                       \
    "    skeletons[skeleton] = is_object(skeleton) and true or false\n"                            \
    "  end\n"                                                                                      \
    "  return skeletons[skeleton]\n"                                                               \
    "end\n"

/* The trim that trims nothing finds out beforehand whether the last step is allowed. A run of
 * refused elements ends the call: others wait. */
static const char pop_text[] = CHECK_ELEMENT
    "local score, head, number = ARGV[1], ARGV[2], tonumber(ARGV[3])\n"
    "local left, most_refused = tonumber(ARGV[4]), tonumber(ARGV[5])\n"
    "local queues, is_fair = tonumber(ARGV[6]), ARGV[7] == '1'\n"
    "local first_list = 2 + queues\n"
    "local patience = left + 1000\n"
    "local scores, values, refused, taken, pieces = {}, {}, {}, {}, {}\n"
    "local function take(list, queue, want)\n"
    "  local key, before = KEYS[first_list + list], taken[list] or 0\n"
    "  local elements = redis.call('LRANGE', key, -before - want, -before - 1)\n"
    "  if #elements == 0 then\n"
    "    return 0\n"
    "  end\n"
    "  if before == 0 then\n"
    "    redis.call('LTRIM', key, 0, -1)\n"
    "  end\n"
    "  taken[list] = before + #elements\n"
    "  patience = patience - #elements\n"
    "  local piece, tail = {list, 0}, ARGV[7 + queue]\n"
    "  for place = #elements, 1, -1 do\n"
    "    local element = elements[place]\n"
    "    if is_right(element) then\n"
    "      local tag = head .. string.format('%.0f', number)\n"
    "      number, left = number + 1, left - 1\n"
    "      scores[#scores + 1], scores[#scores + 2] = score, tag\n"
    "      values[#values + 1], values[#values + 2] = tag, '[' .. element .. tail\n"
    "      piece[#piece + 1] = element\n"
    "    else\n"
    "      refused[queue] = refused[queue] or {}\n"
    "      table.insert(refused[queue], element)\n"
    "      piece[2] = piece[2] + 1\n"
    "    end\n"
    "  end\n"
    "  pieces[#pieces + 1] = piece\n"
    "  return #elements\n"
    "end\n"
    "for step = 0, #KEYS - first_list - queues, queues do\n"
    "  local open = {}\n"
    "  for queue = 1, queues do\n"
    "    open[queue] = queue\n"
    "  end\n"
    "  while #open > 0 and left > 0 and patience > 0 do\n"
    "    local share = is_fair and math.max(1, math.floor(left / #open)) or left\n"
    "    local still_open = {}\n"
    "    for _, queue in ipairs(open) do\n"
    "      local want = math.min(share, left, math.max(patience, 0))\n"
    "      if want > 0 and take(step + queue, queue, want) == want then\n"
    "        still_open[#still_open + 1] = queue\n"
    "      end\n"
    "    end\n"
    "    open = still_open\n"
    "  end\n"
    "end\n"
    "for queue, elements in pairs(refused) do\n"
    "  for from = 1, #elements, 1000 do\n"
    "    redis.call('LPUSH', KEYS[2 + queue], unpack(elements, from, math.min(from + 999, "
    "#elements)))\n"
    "  end\n"
    "  redis.call('LTRIM', KEYS[2 + queue], 0, most_refused - 1)\n"
    "end\n"
    "if #scores > 0 then\n"
    "  redis.call('ZADD', KEYS[2], unpack(scores))\n"
    "  redis.call('HSET', KEYS[1], unpack(values))\n"
    "end\n"
    "for list, count in pairs(taken) do\n"
    "  redis.call('LTRIM', KEYS[first_list + list], 0, -count - 1)\n"
    "end\n"
    "return pieces\n";

#define CHECK_VALUE                                                                                \
    "local value = redis.call('HGET', KEYS[1], ARGV[1])\n"                                         \
    "if not value then\n"                                                                          \
    "  redis.call('ZREM', KEYS[2], ARGV[1])\n"                                                     \
    "end\n"                                                                                        \
    "if not value or (ARGV[2] ~= '' and ARGV[2] ~= value) then\n"                                  \
    "  return 0\n"                                                                                 \
    "end\n"
#define FORGET                                                                                     \
    "redis.call('HDEL', KEYS[1], ARGV[1])\n"                                                       \
    "redis.call('ZREM', KEYS[2], ARGV[1])\n"                                                       \
    "return 1\n"

static const char restore_text[] = CHECK_VALUE "for place = 3, #KEYS do\n"
                                               "  redis.call('RPUSH', KEYS[place], ARGV[3])\n"
                                               "end\n" FORGET;

static const char settle_text[] =
    "local function is_of_task(value)\n"
    "  local message = cjson.decode(value)[1]\n"
    "  local headers, properties = message.headers, message.properties\n"
    "  return type(headers) == 'table' and headers.id == ARGV[2]\n"
    "    or type(properties) == 'table' and properties.correlation_id == ARGV[2]\n"
    "end\n"
    "local value = redis.call('HGET', KEYS[1], ARGV[1])\n"
    "if value then\n"
    "  local is_readable, is_right = pcall(is_of_task, value)\n"
    "  if not is_readable or not is_right then\n"
    "    return 0\n"
    "  end\n"
    "end\n" FORGET;

static const char reject_text[] =
    CHECK_VALUE "redis.call('LPUSH', KEYS[3], ARGV[3])\n"
                "redis.call('LTRIM', KEYS[3], 0, ARGV[4] - 1)\n" FORGET;

static const char publish_text[] =
    "for _, key in ipairs(KEYS) do\n"
    "  if not redis.call('LPOS', key, ARGV[1], 'MAXLEN', 1000) then\n"
    "    redis.call('LPUSH', key, ARGV[1])\n"
    "  end\n"
    "end\n"
    "return 1\n";

static const char unlock_text[] = "if redis.call('GET', KEYS[1]) == ARGV[1] then\n"
                                  "  return redis.call('DEL', KEYS[1])\n"
                                  "end\n"
                                  "return 0\n";

static void write_digest(struct broker_redis_script *script)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char sha1[EVP_MAX_MD_SIZE] = {0};
    unsigned length = 0;
    if (EVP_Digest(script->text, strlen(script->text), sha1, &length, EVP_sha1(), NULL) != 1) {
        return; /* the empty digest is unknown to every server: the text goes along each time */
    }
    for (size_t index = 0; index < length && index < 20; index++) {
        script->digest[index * 2] = digits[sha1[index] >> 4];
        script->digest[index * 2 + 1] = digits[sha1[index] & 0xf];
    }
}

void broker_redis_script_init(struct broker_redis_script *scripts)
{
    static const char *const texts[] = {
        [BROKER_REDIS_SCRIPT_POP] = pop_text,       [BROKER_REDIS_SCRIPT_RESTORE] = restore_text,
        [BROKER_REDIS_SCRIPT_REJECT] = reject_text, [BROKER_REDIS_SCRIPT_PUBLISH] = publish_text,
        [BROKER_REDIS_SCRIPT_UNLOCK] = unlock_text, [BROKER_REDIS_SCRIPT_SETTLE] = settle_text,
    };
    for (size_t name = 0; name < BROKER_REDIS_SCRIPT_COUNT; name++) {
        scripts[name] = (struct broker_redis_script){.text = texts[name]};
        write_digest(&scripts[name]);
    }
}

void broker_redis_script_forget(struct broker_redis_script *scripts)
{
    for (size_t name = 0; name < BROKER_REDIS_SCRIPT_COUNT; name++) {
        scripts[name].is_known = false;
    }
}

void broker_redis_script_begin(struct broker_redis_script *scripts,
                               enum broker_redis_script_name name, struct redis_link *link,
                               size_t key_count, size_t argument_count)
{
    struct broker_redis_script *script = &scripts[name];
    redis_link_begin(link, 3 + key_count + argument_count);
    redis_link_argument_text(link, script->is_known ? "EVALSHA" : "EVAL");
    redis_link_argument_text(link, script->is_known ? script->digest : script->text);
    redis_link_argument_integer(link, (int64_t)key_count);
    script->is_known = script->digest[0] != '\0';
}

void broker_redis_script_begin_text(const struct broker_redis_script *scripts,
                                    enum broker_redis_script_name name, struct redis_link *link,
                                    size_t key_count, size_t argument_count)
{
    redis_link_begin(link, 3 + key_count + argument_count);
    redis_link_argument_text(link, "EVAL");
    redis_link_argument_text(link, scripts[name].text);
    redis_link_argument_integer(link, (int64_t)key_count);
}

bool broker_redis_script_is_missing(struct broker_redis_script *scripts,
                                    enum broker_redis_script_name name,
                                    const struct redisReply *reply)
{
    bool is_missing = reply && reply->type == REDIS_REPLY_ERROR
                      && bytes_starts_with(redis_link_text(reply), BYTES("NOSCRIPT"));
    if (is_missing) {
        scripts[name].is_known = false;
    }
    return is_missing;
}
