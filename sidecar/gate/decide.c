#include "decide.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "reasons.h"
#include "signals.h"
#include "text.h"
#include "wait.h"

enum {
    OWNER_MS = 10000, /* how long the owner of the claim may take: two time-outs of the check and some */
    POLL_MS = 100,    /* where changes cannot be watched */
};

enum word decision_read(const char *directory)
{
    char text[8];
    if (file_read(path_in(directory, "", "decision").text, text, sizeof text) < 0)
        return NO_WORD;
    return strcmp(text, "hit") ? WORD_RUN : WORD_HIT;
}

enum claim claim_take(const char *directory)
{
    int fd = open(path_in(directory, "", "claim").text, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd >= 0) {
        close(fd);
        return CLAIM_WON;
    }
    if (errno == EEXIST)
        return CLAIM_LOST;
    say(INTERNAL_ERROR, " cannot claim the decision in ", directory, ": ", strerror(errno), (char *)NULL);
    return CLAIM_BROKEN;
}

void decide_run(const char *directory)
{
    if (!file_write(directory, path_in(directory, "", "decision").text, "run", ONCE) && errno != EEXIST)
        say(INTERNAL_ERROR, " cannot write the decision in ", directory, ": ", strerror(errno), (char *)NULL);
}

static enum word wait_for_owner(const char *directory, int *stopped_by)
{
    if (!signals_hold())
        return WORD_RUN;
    int watch = watch_open();
    bool watched = watch_directory(watch, directory);
    long until = now_ms() + OWNER_MS;
    enum word word;
    while ((word = decision_read(directory)) == NO_WORD && now_ms() < until && !*stopped_by) {
        long tick = now_ms() + POLL_MS;
        wait_for_news(watch, watched || until < tick ? until : tick);
        *stopped_by = signals_asked_to_stop();
    }
    if (watch >= 0)
        close(watch);
    signals_release();
    if (word == NO_WORD && !*stopped_by)
        say(UNDECIDED, " no decision came; the step runs", (char *)NULL);
    return word == NO_WORD ? WORD_RUN : word;
}

enum word decide(const char *directory, int *stopped_by)
{
    *stopped_by = 0;
    enum word word = decision_read(directory);
    if (word != NO_WORD)
        return word;
    switch (claim_take(directory)) {
    case CLAIM_WON:
        decide_run(directory);
        return WORD_RUN;
    case CLAIM_LOST:
        return wait_for_owner(directory, stopped_by);
    default:
        return WORD_RUN;
    }
}
