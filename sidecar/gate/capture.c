#include "capture.h"

#include "child.h"
#include "judge.h"
#include "reasons.h"
#include "signals.h"
#include "step.h"
#include "text.h"
#include "wait.h"

enum {
    TICK_MS = 10000, /* a look without news: for file systems that do not tell */
    POLL_MS = 2000,  /* the same where nothing can be watched */
};

static enum asked who_asks(const struct signalfd_siginfo *signal)
{
    if (!signal_asks_to_stop(signal))
        return NOT_ASKED;
    return signal->ssi_pid == 0 ? ASKED_BY_RUNTIME : ASKED_BY_ARGO;
}

static struct verdict wait_for_the_end(const struct options *options)
{
    int watch = watch_open();
    bool watched = watch_directory(watch, options->shared_dir);
    long ended_at = -1;
    for (enum asked asked = NOT_ASKED;;) {
        struct step step = step_look(options);
        long now = now_ms();
        if (step.mains == SUCCEEDED && ended_at < 0)
            ended_at = now;
        struct verdict verdict = judge(&step, ended_at < 0 ? 0 : now - ended_at, asked);
        if (verdict.act != STAY)
            return verdict;

        wait_for_news(watch, now + (watched ? TICK_MS : POLL_MS));
        for (struct signalfd_siginfo signal; signals_next(&signal);)
            if (who_asks(&signal) > asked)
                asked = who_asks(&signal);
    }
}

/* Every main container ended with 0 by now, so Argo's asking is no reason any more. */
static bool stops_storing(const struct signalfd_siginfo *signal)
{
    return who_asks(signal) == ASKED_BY_RUNTIME;
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
        .stops = stops_storing,
    };
    struct outcome outcome = work_run(&work);
    if (outcome.ending != WORK_ENDED || outcome.code != 0)
        outcome_say(&outcome, reasons[outcome.ending], work.verb);
}

void capture(const struct options *options)
{
    if (!signals_hold())
        return;
    struct verdict verdict = wait_for_the_end(options);
    if (verdict.act == STORE)
        store(options);
    else
        say(verdict.reason, " ", verdict.text, (char *)NULL);
}
