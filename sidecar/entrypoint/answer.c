#include "answer.h"

#include "child.h"
#include "decide.h"
#include "reasons.h"
#include "text.h"

/* A retraction that is cut off leaves a result beside a running step, so it is not hurried with the check. */
enum { LEAST_RETRACT_MS = 2000 };

static struct outcome run(const struct options *options, const char *verb, long timeout_ms, enum asked heeds)
{
    struct work work = {
        .command = options->command,
        .verb = verb,
        .timeout_ms = timeout_ms,
        .memory_mib = options->memory_mib,
        .heeds = heeds,
    };
    return work_run(&work);
}

enum asked look_up(const struct options *options, long timeout_ms)
{
    struct outcome outcome = run(options, "check", timeout_ms, ASKED_BY_ARGO);
    if (decision_read(options->shared_dir) == NO_WORD) {
        if (outcome.ending == WORK_ENDED && outcome.code == 0)
            say(UNDECIDED, " the check ended without a decision", (char *)NULL);
        else
            outcome_say(&outcome, UNDECIDED, "check");
    }
    return outcome.asked;
}

static enum asked retract(const struct options *options, long timeout_ms)
{
    bool hurried = timeout_ms < LEAST_RETRACT_MS;
    struct outcome outcome = run(options, "retract", hurried ? LEAST_RETRACT_MS : timeout_ms, NOT_ASKED);
    if (outcome.ending != WORK_ENDED || outcome.code != 0)
        outcome_say(&outcome, UNDECIDED, "retract");
    return outcome.asked;
}

enum asked settle(const struct options *options, long timeout_ms)
{
    enum asked asked = NOT_ASKED;
    if (decision_read(options->shared_dir) != NO_WORD)
        return asked;
    if (claim_take(options->shared_dir) != CLAIM_WON && options->command)
        asked = retract(options, timeout_ms);
    decide_run(options->shared_dir);
    return asked;
}
