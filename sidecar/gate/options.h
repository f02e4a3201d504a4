/* The command line, as main.c describes it. */
#ifndef STEPMEMO_OPTIONS_H
#define STEPMEMO_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

struct options {
    const char *shared_dir; /* of all containers of the Pod */
    const char *argo_dir;   /* where Argo's emissary leaves exit codes */
    long timeout_ms;        /* -t */
    long memory_mib;        /* -m; 0: no limit */
    const char *record_as;  /* -r; NULL: become the command */
    const char *wait_name;  /* -w; NULL: nothing besides the main containers is waited for */
    char **main_names;      /* -M, as often as there are main containers */
    size_t main_count;
    char **command; /* the words after `--`, NULL-terminated; NULL when there are none */
};

/* Reads the words, NULL-terminated, into the options; `allowed` are the letters that may be used, each
 * takes a value. Says what is wrong and returns false, the options then being half read. Takes the words'
 * array over. */
bool options_parse(struct options *options, const char *allowed, char **words);

#endif
