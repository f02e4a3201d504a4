#include "decide.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "names.h"
#include "reasons.h"
#include "signals.h"
#include "text.h"
#include "wait.h"

enum {
    OWNER_MS = 10000, /* how long the owner of the claim may take after our own patience ended: to give up
                         its check, to retract, and once in between to be killed and started again */
    POLL_MS = 100,    /* for file systems that do not tell; nobody waits here for long */
};

enum word decision_read(const char *directory)
{
    char text[8];
    if (file_read(path_in(directory, "", DECISION_FILE).text, text, sizeof text) < 0)
        return NO_WORD;
    return strcmp(text, DECISION_HIT) ? WORD_RUN : WORD_HIT;
}

enum claim claim_take(const char *directory)
{
    if (file_make(path_in(directory, "", CLAIM_FILE).text))
        return CLAIM_WON;
    if (errno == EEXIST)
        return CLAIM_LOST;
    say(INTERNAL_ERROR, " cannot claim the decision in ", directory, ": ", strerror(errno), (char *)NULL);
    return CLAIM_BROKEN;
}

enum word decide_run(const char *directory)
{
    if (!file_write(directory, path_in(directory, "", DECISION_FILE).text, DECISION_RUN, ONCE) && errno !=
    EEXIST)
        say(INTERNAL_ERROR, " cannot write the decision in ", directory, ": ", strerror(errno), (char *)NULL);
    return decision_read(directory) == WORD_HIT ? WORD_HIT : WORD_RUN;
}

static enum word wait_for_word(const char *directory, int watch, long until, int *stopped_by)
{
    enum word word;
    while ((word = decision_read(directory)) == NO_WORD && now_ms() < until && !*stopped_by) {
        long tick = now_ms() + POLL_MS;
        wait_for_news(watch, until < tick ? until : tick);
        *stopped_by = signals_asked_to_stop();
    }
    return word;
}

/* The word of whoever comes first, or of the owner of the claim; ours, when neither of them says one. */
static enum word wait_or_claim(const char *directory, int watch, long patience_ms, int *stopped_by)
{
    enum word word = wait_for_word(directory, watch, now_ms() + patience_ms, stopped_by);
    if (word != NO_WORD || *stopped_by)
        return word;
    enum claim claim = claim_take(directory);
    if (claim == CLAIM_WON)
        return decide_run(directory);
    /* Where only we cannot write, somebody else may say a word yet: not with an init container, nor where the
     * volume is not there at all. */
    if (claim == CLAIM_BROKEN && (!patience_ms || access(directory, X_OK) != 0))
        return WORD_RUN;
    word = wait_for_word(directory, watch, now_ms() + OWNER_MS + patience_ms, stopped_by);
    if (word != NO_WORD || *stopped_by)
        return word;
    say(UNDECIDED, " no decision came; the step runs", (char *)NULL);
    return decide_run(directory);
}

enum word decide(const char *directory, long patience_ms, int *stopped_by)
{
    *stopped_by = 0;
    enum word word = decision_read(directory);
    if (word != NO_WORD)
        return word;
    bool held = signals_hold();
    int watch = watch_open();
    if (!watch_directory(watch, directory)) {
        close(watch);
        watch = -1;
    }
    word = wait_or_claim(directory, watch, patience_ms, stopped_by);
    if (watch >= 0)
        close(watch);
    if (held)
        signals_release();
    return word == NO_WORD ? WORD_RUN : word;
}
