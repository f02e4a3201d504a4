/* The reason codes that the entrypoint itself reports, out of the closed table in memoize/reasons.py. */
#ifndef STEPMEMO_REASONS_H
#define STEPMEMO_REASONS_H

#define HIT "Hit"
#define UNDECIDED "Undecided"
#define STEP_FAILED "StepFailed"
#define OUTPUTS_FAILED "OutputsFailed"
#define API_UNAVAILABLE "ApiUnavailable"
#define STOPPED "Stopped"
#define INTERNAL_ERROR "InternalError"

#endif
