#include "step.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "files.h"
#include "wait.h"

/* An exit code in a file: Argo's emissary creates it, then writes it, so an empty one is none yet. */
enum end { NO_END, ENDED_WITH_0, ENDED_OTHERWISE };

static enum end read_end(const char *path)
{
    char text[16];
    if (file_read(path, text, sizeof text) <= 0)
        return NO_END;
    return strcmp(text, "0") ? ENDED_OTHERWISE : ENDED_WITH_0;
}

/* Argo's directory of a main container, or with NULL the one that they are all in. */
static struct path main_directory(const struct options *options, const char *name)
{
    return path_in(options->argo_dir, name ? "ctr/" : "ctr", name ? name : "");
}

static enum mains look_at_mains(const struct options *options)
{
    enum mains mains = MAINS_SUCCEEDED;
    for (size_t i = 0; i < options->main_count; i++) {
        struct path directory = main_directory(options, options->main_names[i]);
        switch (read_end(path_in(directory.text, "", "exitcode").text)) {
        case ENDED_OTHERWISE:
            return MAINS_FAILED;
        case NO_END:
            mains = MAINS_RUNNING;
            break;
        case ENDED_WITH_0:
            break;
        }
    }
    return mains;
}

enum lock { NO_LOCK, LOCK_HELD, LOCK_FREE };

static enum lock look_at_lock(const struct options *options)
{
    int fd = open(path_in(options->shared_dir, "lock-", options->wait_name).text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NO_LOCK;
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return held ? LOCK_HELD : LOCK_FREE;
}

static enum waiter look_at_waiter(const struct options *options)
{
    if (!options->wait_name)
        return WAITER_NONE;
    /* First the lock, then the exit code: it is written before the lock is given up. */
    enum lock lock = look_at_lock(options);
    switch (read_end(path_in(options->shared_dir, "exit-", options->wait_name).text)) {
    case ENDED_WITH_0:
        return WAITER_SUCCEEDED;
    case ENDED_OTHERWISE:
        return WAITER_FAILED;
    default:
        return lock == NO_LOCK ? WAITER_ABSENT : lock == LOCK_HELD ? WAITER_RUNNING : WAITER_KILLED;
    }
}

struct step step_look(const struct options *options)
{
    return (struct step){
        .word = decision_read(options->shared_dir),
        .mains = look_at_mains(options),
        .waiter = look_at_waiter(options),
    };
}

bool step_watch(int watch, const struct options *options)
{
    /* Parents first: a directory that is made after it was found absent is news in its parent. */
    bool whole = watch_directory(watch, options->shared_dir) == WATCHED &&
                 watch_directory(watch, options->argo_dir) == WATCHED &&
                 watch_directory(watch, main_directory(options, NULL).text) != WATCH_BROKEN;
    for (size_t i = 0; i < options->main_count; i++)
        whole &= watch_directory(watch, main_directory(options, options->main_names[i]).text) != WATCH_BROKEN;
    return whole;
}
