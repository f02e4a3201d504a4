/* What the entrypoint shares with Python: files, their words, variables. Described in memoize/names.py, where
each
 * has the same name and value (tests/sidecar/entrypoint/test_names.py). */
#ifndef STEPMEMO_NAMES_H
#define STEPMEMO_NAMES_H

#define SHARED_DIR "/stepmemo"
#define ENV_SHARED_DIR "STEPMEMO_SHARED_DIR"
#define BIN_DIR "/stepmemo-bin"
#define ENV_BIN_DIR "STEPMEMO_BIN_DIR"
#define ENV_TIMEOUT_MS "STEPMEMO_TIMEOUT_MS"

#define ENTRYPOINT_FILE "entrypoint"
#define CLAIM_FILE "claim"
#define DECISION_FILE "decision"
#define DECISION_HIT "hit"
#define DECISION_RUN "run"
#define START_FILE_PREFIX "started-"
#define EXIT_FILE_PREFIX "exit-"
#define LOCK_FILE_PREFIX "lock-"

#endif
