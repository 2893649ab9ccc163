#include "executor/job_quota.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define QUOTA(pods, cpu)                                                                              \
    "{\"metadata\":{\"name\":\"user-quota\"},\"spec\":{\"hard\":{\"pods\":\"3\",\"requests.cpu\":"    \
    "\"1\"}},\"status\":{\"hard\":{\"pods\":\"3\",\"requests.cpu\":\"1\"},\"used\":{\"pods\":\"" pods \
    "\",\"requests.cpu\":\"" cpu "\"}}}"

static const char small_pod[] = "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":"
                                "\"main\",\"resources\":{\"requests\":{\"cpu\":\"200m\"}}}]}}}}";

#define MAX_OBJECTS 16

struct fixture {
    json_t *objects[MAX_OBJECTS]; /* which the quota borrows */
    size_t object_count;
    struct job_quota quota;
    int64_t asked[JOB_QUOTA_MAX_LIMITS]; /* by the small pod */
};

static int set_up(void **state)
{
    struct fixture *f = memory_new(sizeof(*f));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (size_t index = 0; index < f->object_count; index++) {
        json_decref(f->objects[index]);
    }
    memory_free(&f);
    return 0;
}

static json_t *load(struct fixture *f, const char *text)
{
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    assert_in_range(f->object_count, 0, MAX_OBJECTS - 1);
    f->objects[f->object_count++] = object;
    return object;
}

/* Reads a newer status of the quota. */
static void read_quota(struct fixture *f, const char *text)
{
    struct job_quota old = f->quota;
    f->quota = (struct job_quota){.reserved_pods = old.reserved_pods};
    job_quota_add(&f->quota, load(f, text));
    assert_true(job_quota_carry(&f->quota, &old) || old.count == 0);
    job_quota_ask(&f->quota, load(f, small_pod), f->asked);
}

static void move(struct fixture *f, enum job_quota_stage from, enum job_quota_stage to)
{
    job_quota_move(&f->quota, f->asked, from, to);
}

static size_t fits(struct fixture *f)
{
    return job_quota_fits(&f->quota, f->asked);
}

static void the_scarcest_resource_decides(void **state)
{
    struct fixture *f = *state;
    read_quota(f, QUOTA("0", "0"));
    assert_int_equal(1000, f->asked[0]);
    assert_int_equal(200, f->asked[1]);
    assert_int_equal(3, fits(f));
    assert_null(job_quota_find_short(&f->quota, f->asked));
    job_quota_reset(&f->quota);
    read_quota(f, QUOTA("0", "700m"));
    assert_int_equal(1, fits(f));
    job_quota_reset(&f->quota);
    read_quota(f, QUOTA("0", "900m"));
    assert_int_equal(0, fits(f));
    assert_string_equal("requests.cpu", job_quota_find_short(&f->quota, f->asked)->resource);
}

static void what_is_kept_free_is_of_pods_alone(void **state)
{
    struct fixture *f = *state;
    f->quota.reserved_pods = 1;
    read_quota(f, QUOTA("0", "0"));
    assert_int_equal(2, fits(f));
    move(f, JOB_QUOTA_ABSENT, JOB_QUOTA_STARTING);
    move(f, JOB_QUOTA_ABSENT, JOB_QUOTA_STARTING);
    assert_int_equal(0, fits(f));
}

static void a_late_status_makes_no_room(void **state)
{
    struct fixture *f = *state;
    /* Another's pod and two of ours, which the status tells of one after the other. */
    read_quota(f, QUOTA("1", "0"));
    assert_int_equal(2, fits(f));
    move(f, JOB_QUOTA_ABSENT, JOB_QUOTA_STARTING);
    move(f, JOB_QUOTA_ABSENT, JOB_QUOTA_STARTING);
    assert_int_equal(0, fits(f));
    read_quota(f, QUOTA("2", "200m"));
    assert_int_equal(0, fits(f));
    read_quota(f, QUOTA("3", "400m"));
    move(f, JOB_QUOTA_STARTING, JOB_QUOTA_COUNTED);
    move(f, JOB_QUOTA_STARTING, JOB_QUOTA_COUNTED);
    assert_int_equal(0, fits(f));
    /* One of ours ends; the status follows a moment later: the place is free at once. */
    move(f, JOB_QUOTA_COUNTED, JOB_QUOTA_LEAVING);
    assert_int_equal(1, fits(f));
    read_quota(f, QUOTA("2", "200m"));
    move(f, JOB_QUOTA_LEAVING, JOB_QUOTA_ABSENT);
    assert_int_equal(1, fits(f));
}

static void others_that_come_take_places(void **state)
{
    struct fixture *f = *state;
    read_quota(f, QUOTA("1", "200m"));
    move(f, JOB_QUOTA_ABSENT, JOB_QUOTA_COUNTED);
    assert_int_equal(2, fits(f));
    read_quota(f, QUOTA("3", "200m"));
    assert_int_equal(0, fits(f));
    read_quota(f, QUOTA("1", "200m"));
    assert_int_equal(2, fits(f));
}

static void what_never_fits_is_told_from_what_waits(void **state)
{
    struct fixture *f = *state;
    int64_t large[] = {1000, 1001};
    read_quota(f, QUOTA("3", "1"));
    assert_non_null(job_quota_find_short(&f->quota, f->asked));
    assert_null(job_quota_find_never(&f->quota, f->asked));
    const struct job_quota_limit *limit = job_quota_find_never(&f->quota, large);
    assert_non_null(limit);
    struct arena *arena = arena_new(256);
    assert_string_equal(
        "needs 1001m of requests.cpu; quota user-quota allows 1, of which 1 is in use",
        job_quota_describe(&f->quota, limit, large, arena));
    arena_free(&arena);
    f->quota.reserved_pods = 3;
    assert_string_equal("pods", job_quota_find_never(&f->quota, f->asked)->resource);
}

static void a_quota_that_grows_is_no_reason_to_fail(void **state)
{
    struct fixture *f = *state;
    read_quota(f, "{\"metadata\":{\"name\":\"q\"},\"spec\":{\"hard\":{\"pods\":\"2\"}},"
                  "\"status\":{\"hard\":{\"pods\":\"0\"},\"used\":{\"pods\":\"0\"}}}");
    assert_int_equal(0, fits(f));
    assert_null(job_quota_find_never(&f->quota, f->asked));
}

static void a_large_one_may_fit_when_ours_are_gone(void **state)
{
    struct fixture *f = *state;
    int64_t large[] = {1000, 900};
    read_quota(f, QUOTA("1", "200m"));
    move(f, JOB_QUOTA_ABSENT, JOB_QUOTA_COUNTED);
    assert_non_null(job_quota_find_short(&f->quota, large));
    assert_true(job_quota_fits_alone(&f->quota, large));
    read_quota(f, QUOTA("2", "400m"));
    assert_false(job_quota_fits_alone(&f->quota, large));
}

static void places_are_given_by_what_is_used(void **state)
{
    struct fixture *f = *state;
    int64_t given[JOB_QUOTA_MAX_LIMITS] = {0};
    read_quota(f, QUOTA("1", "200m"));
    assert_true(job_quota_give(&f->quota, f->asked, given));
    assert_true(job_quota_give(&f->quota, f->asked, given));
    assert_false(job_quota_give(&f->quota, f->asked, given));
}

static void finished_jobs_count_as_jobs(void **state)
{
    struct fixture *f = *state;
    int64_t given[JOB_QUOTA_MAX_LIMITS] = {0};
    read_quota(f, "{\"metadata\":{\"name\":\"q\"},\"spec\":{\"hard\":{\"count/jobs.batch\":\"4\"}},"
                  "\"status\":{\"hard\":{\"count/jobs.batch\":\"4\"},"
                  "\"used\":{\"count/jobs.batch\":\"3\"}}}");
    assert_true(f->quota.limits[0].is_jobs);
    move(f, JOB_QUOTA_ABSENT, JOB_QUOTA_COUNTED);
    assert_int_equal(1, fits(f));
    assert_true(job_quota_give(&f->quota, f->asked, given)); /* a pod takes none of it */
    assert_false(job_quota_is_full_of_jobs(&f->quota));
    read_quota(f, "{\"metadata\":{\"name\":\"q\"},\"spec\":{\"hard\":{\"count/jobs.batch\":\"4\"}},"
                  "\"status\":{\"hard\":{\"count/jobs.batch\":\"4\"},"
                  "\"used\":{\"count/jobs.batch\":\"4\"}}}");
    assert_true(job_quota_is_full_of_jobs(&f->quota));
}

static void without_what_limits_it_there_is_no_limit(void **state)
{
    struct fixture *f = *state;
    assert_true(fits(f) == JOB_QUOTA_UNLIMITED);
    read_quota(f, "{\"spec\":{\"hard\":{\"services\":\"0\"}}}");
    assert_true(fits(f) == JOB_QUOTA_UNLIMITED);
    read_quota(f, "{\"spec\":{\"hard\":{\"services\":\"0\"}}}");
    struct job_quota scoped = {.count = 0};
    job_quota_add(&scoped,
                  load(f, "{\"spec\":{\"hard\":{\"pods\":0},\"scopes\":[\"Terminating\"]}}"));
    job_quota_ask(&scoped, f->objects[1], f->asked);
    assert_true(job_quota_fits(&scoped, f->asked) == JOB_QUOTA_UNLIMITED);
}

static void other_limits_are_told(void **state)
{
    struct fixture *f = *state;
    struct job_quota first = {.count = 0};
    struct job_quota second = {.count = 0};
    struct job_quota scoped = {.count = 0};
    job_quota_add(&first, load(f, "{\"spec\":{\"hard\":{\"pods\":\"3\"}}}"));
    job_quota_add(&second, load(f, "{\"spec\":{\"hard\":{\"pods\":\"5\"}}}"));
    job_quota_add(&scoped,
                  load(f, "{\"spec\":{\"hard\":{\"pods\":\"3\"},\"scopes\":[\"BestEffort\"]}}"));
    assert_true(job_quota_carry(&second, &first));
    assert_false(job_quota_carry(&scoped, &first));
    job_quota_add(&second, f->objects[0]);
    assert_false(job_quota_carry(&second, &first));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_scarcest_resource_decides),
        TEST(what_is_kept_free_is_of_pods_alone),
        TEST(a_late_status_makes_no_room),
        TEST(others_that_come_take_places),
        TEST(what_never_fits_is_told_from_what_waits),
        TEST(a_quota_that_grows_is_no_reason_to_fail),
        TEST(a_large_one_may_fit_when_ours_are_gone),
        TEST(places_are_given_by_what_is_used),
        TEST(finished_jobs_count_as_jobs),
        TEST(without_what_limits_it_there_is_no_limit),
        TEST(other_limits_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
