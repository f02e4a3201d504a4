#include "step.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "files.h"
#include "names.h"
#include "wait.h"

enum lock { NO_LOCK, LOCK_HELD, LOCK_FREE };

static enum lock look_at_lock(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); /* see file_read */
    if (fd < 0)
        return NO_LOCK;
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return held ? LOCK_HELD : LOCK_FREE;
}

/* Every other exit code of a sidecar fails the node; these two are what comes of ending it. */
static bool is_a_sidecars(const char *code)
{
    return !strcmp(code, "137") || !strcmp(code, "143");
}

static enum ended look_at(const struct options *options, char letter, const char *name)
{
    /* First the lock, then the exit code: it is written before the lock is given up. */
    enum lock lock = look_at_lock(path_in(options->shared_dir, LOCK_FILE_PREFIX, name).text);
    char code[16];
    if (file_read(path_in(options->shared_dir, EXIT_FILE_PREFIX, name).text, code, sizeof code) > 0) {
        if (letter != MAIN) /* Argo stops the others once the main containers have ended */
            code[strcspn(code, " ")] = '\0';
        return !strcmp(code, "0") || (letter == SIDECAR && is_a_sidecars(code)) ? SUCCEEDED : FAILED;
    }
    if (lock == LOCK_FREE)
        return letter == SIDECAR ? SUCCEEDED : KILLED;
    return lock == LOCK_HELD ? RUNNING : ABSENT;
}

/* The next container of a kind, at or after `words`; NULL when there is no more. */
static char **next(char **words, char letter)
{
    for (; *words && strcmp(*words, "--"); words += 2)
        if (words[0][1] == letter)
            return words;
    return NULL;
}

bool step_has_mains(const struct options *options)
{
    return next(options->awaited, MAIN) != NULL;
}

/* All containers of one kind: what one of them has come to decides for all, by the order of `enum ended`. */
static enum ended look_at_all(const struct options *options, char letter)
{
    enum ended worst = SUCCEEDED;
    for (char **words = options->awaited; (words = next(words, letter)); words += 2) {
        enum ended ended = look_at(options, letter, words[1]);
        if (ended > worst)
            worst = ended;
    }
    return worst;
}

struct step step_look(const struct options *options)
{
    return (struct step){
        .word = decision_read(options->shared_dir),
        .mains = look_at_all(options, MAIN),
        .waiter = look_at_all(options, WAITER),
        .sidecars = look_at_all(options, SIDECAR),
    };
}
