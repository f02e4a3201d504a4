#include "capture.h"

#include "answer.h"
#include "child.h"
#include "decide.h"
#include "judge.h"
#include "reasons.h"
#include "signals.h"
#include "starts.h"
#include "step.h"
#include "text.h"
#include "wait.h"

enum {
    TICK_MS = 10000, /* a look without news: for file systems that do not tell */
    POLL_MS = 2000,  /* the same where nothing can be watched */
};

static enum asked greater(enum asked one, enum asked other)
{
    return one > other ? one : other;
}

static struct verdict wait_for_the_end(const struct options *options, enum asked asked)
{
    int watch = watch_open();
    bool watched = watch_directory(watch, options->shared_dir);
    for (long ended_at = -1;;) {
        struct step step = step_look(options);
        long now = now_ms();
        if (step.mains == SUCCEEDED && ended_at < 0)
            ended_at = now;
        struct verdict verdict = judge(&step, ended_at < 0 ? 0 : now - ended_at, asked);
        if (verdict.act != STAY)
            return verdict;

        wait_for_news(watch, now + (watched ? TICK_MS : POLL_MS));
        for (struct signalfd_siginfo signal; signals_next(&signal);)
            asked = greater(asked, signal_asks(&signal));
    }
}

static void store(const struct options *options)
{
    static const char *const reasons[] = {
        [WORK_ENDED] = INTERNAL_ERROR,
        [WORK_TIMED_OUT] = API_UNAVAILABLE,
        [WORK_STOPPED] = STOPPED,
        [WORK_NOT_STARTED] = INTERNAL_ERROR,
    };
    struct work work = {
        .command = options->command,
        .verb = "capture",
        .timeout_ms = options->timeout_ms,
        .memory_mib = options->memory_mib,
        /* Every main container ended with 0 by now, so Argo's asking is no reason any more. */
        .heeds = ASKED_BY_RUNTIME,
    };
    struct outcome outcome = work_run(&work);
    if (outcome.ending != WORK_ENDED || outcome.code != 0)
        outcome_say(&outcome, reasons[outcome.ending], work.verb);
}

static void wait_and_store(const struct options *options, enum asked asked)
{
    struct verdict verdict = wait_for_the_end(options, asked);
    if (verdict.act == STORE)
        store(options);
    else
        say(verdict.reason, " ", verdict.text, (char *)NULL);
}

/* Started again: the whole container was killed, perhaps between claim and decision. Every start after this
 * one leaves at once, so that nothing can go round for ever. */
static void after_a_kill(const struct options *options)
{
    bool decided = decision_read(options->shared_dir) != NO_WORD;
    say(decided ? INTERNAL_ERROR : UNDECIDED,
        " this container was killed and started again; it stores nothing", (char *)NULL);
    settle(options, options->check_ms);
}

static void check_and_capture(const struct options *options)
{
    switch (start_next(options->shared_dir)) {
    case FIRST_START:
        break;
    case SECOND_START:
        after_a_kill(options);
        return;
    default:
        return;
    }
    enum asked asked = look_up(options, options->check_ms);
    asked = greater(asked, settle(options, options->check_ms));
    if (decision_read(options->shared_dir) != WORD_HIT && step_has_mains(options))
        wait_and_store(options, asked);
}

void capture(const struct options *options)
{
    if (!signals_hold())
        return;
    if (options->check_ms)
        check_and_capture(options);
    else
        wait_and_store(options, NOT_ASKED);
}
