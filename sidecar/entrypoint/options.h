/* The command line, as main.c describes it. */
#ifndef STEPMEMO_OPTIONS_H
#define STEPMEMO_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

/* What a container that the sidecar waits for is to the step: the letter of its option. */
enum { MAIN = 'M', WAITER = 'w', SIDECAR = 's' };

struct options {
    const char *shared_dir; /* of all containers of the Pod */
    const char *bin_dir;    /* where `check` puts the entrypoint */
    long timeout_ms;        /* -t */
    long check_ms;          /* -c; 0: no look-up */
    long memory_mib;        /* -m; 0: no limit */
    const char *record_as;  /* -r; NULL: become the command */
    char **awaited;         /* the words before `--`: letter and name of each container waited for */
    char **command;         /* the words after `--`, NULL-terminated; NULL when there are none */
};

/* Reads the words, NULL-terminated, into the options; `allowed` are the letters that may be used, each
 * takes a value. Says what is wrong and returns false, the options then being half read. Keeps the words. */
bool options_parse(struct options *options, const char *allowed, char **words);

#endif
