#include "worker/options_table.h"

#include <string.h>

#include "base/banned.h"

#define MEMBER(name) offsetof(struct options, name)

#define FIRST  OPTIONS_BEFORE_COMMAND
#define WORKER OPTIONS_AFTER_WORKER
#define PROBE  OPTIONS_AFTER_PROBE
#define ALL    (FIRST | WORKER | PROBE)

#define FLAG    OPTIONS_VALUE_NONE
#define TEXT    OPTIONS_VALUE_TEXT
#define INTEGER OPTIONS_VALUE_INTEGER
#define FLOAT   OPTIONS_VALUE_FLOAT
#define COUNT   OPTIONS_VALUE_COUNT
#define CHOICE  OPTIONS_VALUE_CHOICE

#define LEVELS "DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL"
#define POOLS  "prefork|eventlet|gevent|solo|processes|threads|custom"

/* clang-format off */
const struct options_row options_table_rows[] = {
    /* name, other spelling, short, click's variable, its own variable, value, kind, effect, places, member, detail, help */
    {"--app", NULL, "-A", "CELERY_APP", "APP", "APP", TEXT, OPTIONS_SETS_MEMBER, FIRST, MEMBER(app), NULL,
     "Celery app, as proj or proj.celery:app; Python tells its settings and tasks."},
    {"--broker", NULL, "-b", "CELERY_BROKER", "BROKER_URL", "URL", TEXT, OPTIONS_SETS_SETTING, FIRST, 0, "broker_url",
     "Where messages come from, as redis://host:6379/0."},
    {"--result-backend", NULL, NULL, "CELERY_RESULT_BACKEND", "RESULT_BACKEND", "URL", TEXT, OPTIONS_SETS_SETTING, FIRST, 0, "result_backend",
     "Where results are stored."},
    {"--loader", NULL, NULL, "CELERY_LOADER", "LOADER", "CLASS", TEXT, OPTIONS_WARNS, FIRST, 0, "there is no Python here that could load it", NULL},
    {"--config", NULL, NULL, "CELERY_CONFIG", "CONFIG_MODULE", "FILE", TEXT, OPTIONS_SETS_CONFIG, FIRST | WORKER | PROBE, 0, NULL,
     "Settings file (.yaml, .yml or .json), else PETIOLE_CONFIG; or Celery's config module."},
    {"--manifest", NULL, NULL, "PETIOLE_MANIFEST", NULL, "FILE", TEXT, OPTIONS_SETS_MEMBER, FIRST | WORKER, MEMBER(manifest_path), NULL,
     "What python -m petiole.manifest wrote of the app: no Python is asked."},
    {"--workdir", NULL, NULL, "CELERY_WORKDIR", NULL, "FOLDER", TEXT, OPTIONS_SETS_MEMBER, FIRST, MEMBER(workdir), NULL,
     "Change to this folder first."},
    {"--no-color", NULL, "-C", "CELERY_NO_COLOR", "NO_COLOR", NULL, FLAG, OPTIONS_SETS_MEMBER, FIRST, MEMBER(has_no_color), NULL,
     "No colours in banner and log."},
    {"--quiet", NULL, "-q", "CELERY_QUIET", NULL, NULL, FLAG, OPTIONS_SETS_MEMBER, FIRST, MEMBER(is_quiet), NULL,
     "No banner."},
    {"--version", NULL, NULL, NULL, NULL, NULL, FLAG, OPTIONS_SHOWS_VERSION, FIRST, 0, NULL,
     "Show the version and exit."},
    {"--skip-checks", NULL, NULL, "CELERY_SKIP_CHECKS", "SKIP_CHECKS", NULL, FLAG, OPTIONS_IS_ACCEPTED, FIRST, 0, NULL, NULL},

    {"--hostname", NULL, "-n", "CELERY_WORKER_HOSTNAME", NULL, "NAME", TEXT, OPTIONS_SETS_MEMBER, WORKER, MEMBER(node_name), NULL,
     "Node name, as w1@%h: %h is the hostname, %n its first part."},
    {"--loglevel", NULL, "-l", "CELERY_WORKER_LOGLEVEL", NULL, LEVELS, CHOICE, OPTIONS_SETS_LOGLEVEL, WORKER, 0, NULL,
     "Which log lines are written; WARNING and above without it."},
    {"--logfile", NULL, "-f", "CELERY_WORKER_LOGFILE", NULL, "FILE", TEXT, OPTIONS_SETS_SETTING, WORKER, 0, "worker_logfile",
     "Where they are written; stderr without it."},
    {"--concurrency", NULL, "-c", "CELERY_WORKER_CONCURRENCY", NULL, "N|auto", COUNT, OPTIONS_SETS_SETTING, WORKER, 0, "worker_concurrency",
     "Processes at a time; the number of CPUs without it."},
    {"--queues", NULL, "-Q", "CELERY_WORKER_QUEUES", NULL, "A,B", TEXT, OPTIONS_SETS_MEMBER, WORKER, MEMBER(queues), NULL,
     "Queues to consume; the tenant's without it."},
    {"--exclude-queues", NULL, "-X", "CELERY_WORKER_EXCLUDE_QUEUES", NULL, "A,B", TEXT, OPTIONS_SETS_MEMBER, WORKER, MEMBER(exclude_queues), NULL,
     "Queues not to consume."},
    {"--plugin", NULL, NULL, NULL, NULL, "FILE", TEXT, OPTIONS_ADDS_PLUGIN, FIRST | WORKER, 0, "plugins",
     "Shared library with native tasks; may be given several times."},
    {"--task-events", "--events", "-E", "CELERY_WORKER_TASK_EVENTS", NULL, NULL, FLAG, OPTIONS_SETS_SETTING, WORKER, 0, "worker_send_task_events",
     "Send task events; not part of this version."},
    {"--time-limit", NULL, NULL, "CELERY_WORKER_TIME_LIMIT", NULL, "SECONDS", FLOAT, OPTIONS_SETS_SETTING, WORKER, 0, "task_time_limit",
     "A task is ended after so long."},
    {"--soft-time-limit", NULL, NULL, "CELERY_WORKER_SOFT_TIME_LIMIT", NULL, "SECONDS", FLOAT, OPTIONS_SETS_SETTING, WORKER, 0, "task_soft_time_limit",
     "A task is asked to end after so long."},
    {"--purge", "--discard", NULL, "CELERY_WORKER_PURGE", NULL, NULL, FLAG, OPTIONS_SETS_MEMBER, WORKER, MEMBER(is_purging), NULL,
     "Erase all messages of the queues before the start."},
    {"--pidfile", NULL, NULL, "CELERY_WORKER_PIDFILE", NULL, "FILE", TEXT, OPTIONS_SETS_SETTING, WORKER, 0, "worker_pidfile",
     "File of the process id."},
    {"--detach", NULL, "-D", "CELERY_WORKER_DETACH", NULL, NULL, FLAG, OPTIONS_SETS_MEMBER, WORKER, MEMBER(is_detached), NULL,
     "Go to the background."},
    {"--uid", NULL, NULL, "CELERY_WORKER_UID", NULL, "USER", TEXT, OPTIONS_SETS_SETTING, WORKER, 0, "worker_uid",
     "User to run as."},
    {"--gid", NULL, NULL, "CELERY_WORKER_GID", NULL, "GROUP", TEXT, OPTIONS_SETS_SETTING, WORKER, 0, "worker_gid",
     "Group to run as."},
    {"--umask", NULL, NULL, "CELERY_WORKER_UMASK", NULL, "OCTAL", TEXT, OPTIONS_SETS_SETTING, WORKER, 0, "worker_umask",
     "Permissions that new files do not get."},
    {"--without-gossip", NULL, NULL, "CELERY_WORKER_WITHOUT_GOSSIP", NULL, NULL, FLAG, OPTIONS_IS_ACCEPTED, WORKER, 0, NULL, NULL},
    {"--without-mingle", NULL, NULL, "CELERY_WORKER_WITHOUT_MINGLE", NULL, NULL, FLAG, OPTIONS_IS_ACCEPTED, WORKER, 0, NULL, NULL},
    {"--without-heartbeat", NULL, NULL, "CELERY_WORKER_WITHOUT_HEARTBEAT", NULL, NULL, FLAG, OPTIONS_IS_ACCEPTED, WORKER, 0, NULL, NULL},
    {"--heartbeat-interval", NULL, NULL, "CELERY_WORKER_HEARTBEAT_INTERVAL", NULL, "N", INTEGER, OPTIONS_WARNS, WORKER, 0, "no heartbeats are sent", NULL},
    {"--optimization", NULL, "-O", "CELERY_WORKER_OPTIMIZATION", NULL, "default|fair", CHOICE, OPTIONS_IS_ACCEPTED, WORKER, 0, NULL, NULL},
    {"--pool", NULL, "-P", "CELERY_WORKER_POOL", NULL, POOLS, CHOICE, OPTIONS_SETS_SETTING, WORKER, 0, "worker_pool",
     "How Python tasks run: prefork, or solo for one process."},
    {"--pool-start-method", NULL, NULL, "CELERY_WORKER_POOL_START_METHOD", NULL, "fork|spawn", CHOICE, OPTIONS_WARNS, WORKER, 0, "Python processes are forked by a parent that has loaded the app", NULL},
    {"--max-tasks-per-child", NULL, NULL, "CELERY_WORKER_MAX_TASKS_PER_CHILD", NULL, "N", INTEGER, OPTIONS_SETS_SETTING, WORKER, 0, "worker_max_tasks_per_child",
     "A Python process is replaced after so many tasks."},
    {"--max-memory-per-child", NULL, NULL, "CELERY_WORKER_MAX_MEMORY_PER_CHILD", NULL, "KIB", INTEGER, OPTIONS_SETS_SETTING, WORKER, 0, "worker_max_memory_per_child",
     "A Python process is replaced after it has had so much memory."},
    {"--prefetch-multiplier", NULL, NULL, "CELERY_WORKER_PREFETCH_MULTIPLIER", NULL, "N", INTEGER, OPTIONS_WARNS, WORKER, 0, "messages are taken when there is a place; see worker_lookahead", NULL},
    {"--disable-prefetch", NULL, NULL, "CELERY_WORKER_DISABLE_PREFETCH", NULL, NULL, FLAG, OPTIONS_WARNS, WORKER, 0, "messages are taken when there is a place; see worker_lookahead", NULL},
    {"--autoscale", NULL, NULL, "CELERY_WORKER_AUTOSCALE", NULL, "MAX,MIN", TEXT, OPTIONS_SETS_AUTOSCALE, WORKER, 0, "worker_concurrency",
     "Up to MAX Python processes, instead of -c; MIN has no effect."},
    {"--include", NULL, "-I", "CELERY_WORKER_INCLUDE", NULL, "A,B", TEXT, OPTIONS_SETS_MEMBER, WORKER, MEMBER(include), NULL,
     "More modules that Python imports with the app."},
    {"--statedb", NULL, "-S", "CELERY_WORKER_STATEDB", NULL, "FILE", TEXT, OPTIONS_WARNS, WORKER, 0, "no state is kept", NULL},
    {"--executable", NULL, NULL, "CELERY_WORKER_EXECUTABLE", NULL, "FILE", TEXT, OPTIONS_WARNS, WORKER, 0, "the worker is no Python program", NULL},
    {"--beat", NULL, "-B", "CELERY_WORKER_BEAT", NULL, NULL, FLAG, OPTIONS_REFUSES, WORKER, 0, "run `celery beat` beside the worker", NULL},
    {"--schedule-filename", "--schedule", "-s", "CELERY_WORKER_SCHEDULE_FILENAME", NULL, "FILE", TEXT, OPTIONS_WARNS, WORKER, 0, "there is no beat here", NULL},
    {"--scheduler", NULL, NULL, "CELERY_WORKER_SCHEDULER", NULL, "CLASS", TEXT, OPTIONS_WARNS, WORKER, 0, "there is no beat here", NULL},

    {"--address", NULL, NULL, NULL, NULL, "ADDRESS", TEXT, OPTIONS_SETS_MEMBER, PROBE, MEMBER(address), NULL,
     "Which worker to ask: host:port or unix:/path."},
    {"--help", NULL, NULL, NULL, NULL, NULL, FLAG, OPTIONS_SHOWS_HELP, ALL, 0, NULL,
     "Show this help and exit."},
};
/* clang-format on */

_Static_assert(ARRAY_LENGTH(options_table_rows) <= OPTIONS_TABLE_MAX_ROWS, "raise the maximum");

const size_t options_table_count = ARRAY_LENGTH(options_table_rows);

static void print_row(FILE *file, const struct options_row *row)
{
    char names[128];
    (void)snprintf(names, sizeof(names), "%s%s%s%s%s%s%s", row->short_name ? row->short_name : "",
                   row->short_name ? ", " : "", row->name, row->other ? ", " : "",
                   row->other ? row->other : "", row->value_name ? " " : "",
                   row->value_name ? row->value_name : "");
    if (strlen(names) > 28) {
        (void)fprintf(file, "  %s\n  %-28s  %s\n", names, "", row->help);
    } else {
        (void)fprintf(file, "  %-28s  %s\n", names, row->help);
    }
}

static void print_rows(FILE *file, unsigned places)
{
    for (size_t index = 0; index < options_table_count; index++) {
        const struct options_row *row = &options_table_rows[index];
        if ((row->places & places) != 0 && row->help) {
            print_row(file, row);
        }
    }
}

static const char program_help[] =
    "Usage: petiole [OPTIONS] COMMAND [ARGS]...\n\n"
    "  A Celery worker in C that runs tasks as Kubernetes Jobs.\n\n"
    "Commands:\n"
    "  worker             Start a worker.\n"
    "  check              Try everything that a worker needs: settings, templates, broker, result\n"
    "                     backend, API server and rights.\n"
    "  probe live|ready   Ask a worker on this machine how it is; exit code 0 or 1.\n"
    "  help [COMMAND]     Show help; help settings prints the table of settings as Markdown.\n\n"
    "Options:\n";

static const char worker_help[] =
    "Usage: petiole [OPTIONS] worker [WORKER OPTIONS]\n\n"
    "  Start a worker: take tasks from the broker and run them as the section `tasks` of the\n"
    "  settings says; those of the app that it does not name run in Python processes. Celery's\n"
    "  options keep their names; those that mean nothing here are accepted with a warning. Each\n"
    "  option has Celery's environment variable, as CELERY_WORKER_CONCURRENCY, and each setting has\n"
    "  one, as PETIOLE_KUBERNETES_MAX_JOBS.\n\n"
    "  petiole -A proj worker -l INFO -Q celery -c 4\n"
    "  petiole -b redis://redis:6379/0 --config petiole.yaml worker -l INFO -Q tenant-user\n\n"
    "Worker options:\n";

static const char check_help[] =
    "Usage: petiole [OPTIONS] check [WORKER OPTIONS]\n\n"
    "  Try what a worker with the same options would need and print a line for each, `ok` or\n"
    "  `FAIL`: settings, templates, plugins, broker, result backend, API server and every right.\n"
    "  Exit code 0 when all is well, else 1.\n\n"
    "Worker options:\n";

static const char probe_help[] =
    "Usage: petiole [OPTIONS] probe [PROBE OPTIONS] live|ready\n\n"
    "  Ask a worker on this machine whether it is to be left running (live) or takes tasks (ready).\n"
    "  Asks --address; else the workers in the run directory (PETIOLE_RUN_DIR); else\n"
    "  worker_http_address. Exit code 0 or 1.\n\n"
    "Probe options:\n";

void options_table_print(FILE *file, enum options_command topic)
{
    const char *text = program_help;
    unsigned places = FIRST;
    if (topic == OPTIONS_WORKER || topic == OPTIONS_CHECK) {
        text = topic == OPTIONS_WORKER ? worker_help : check_help;
        places = WORKER;
    } else if (topic == OPTIONS_PROBE) {
        text = probe_help;
        places = PROBE;
    }
    (void)fputs(text, file);
    print_rows(file, places);
    if (places != FIRST) {
        (void)fputs("\nOptions, before the command:\n", file);
        print_rows(file, FIRST);
    }
}
