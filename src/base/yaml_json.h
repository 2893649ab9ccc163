/*
 * JSON as the tree of yaml.h, for whoever reads the same thing in both forms. (libyaml reads most
 * JSON itself, but refuses surrogate pairs, long keys and some characters.)
 */
#ifndef PETIOLE_BASE_YAML_JSON_H
#define PETIOLE_BASE_YAML_JSON_H

#include "base/json.h"
#include "base/yaml.h"

/* A copy of `value`, which json_parse has checked, in `arena`: strings as quoted scalars, numbers,
 * true, false and null as plain ones, all on line 1. Returns NULL with INVALID when it is nested
 * deeper than YAML_MAX_DEPTH, a string has a NUL character or an object has a key twice. */
const struct yaml *yaml_json_tree(struct json value, struct arena *arena, struct error *reterr);

/* Whether no key of `object`, as it is written, is there twice; else INVALID names it. What is no
 * object has no keys. */
bool yaml_json_check_keys(struct json object, struct error *reterr) MUST_CHECK;

#endif
