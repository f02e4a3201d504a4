/* `entrypoint -r NAME -- COMMAND…`: staying parent, so that others learn how the command ended. */
#ifndef STEPMEMO_RECORD_H
#define STEPMEMO_RECORD_H

#include <stdbool.h>

/* Runs the command, passes signals on, leaves its exit code in `exit-NAME`, with ` stopped`
 * after it when a signal asked it to stop before. While this process lives it has
 * `lock-NAME` locked (flock): free without an exit code means that it was killed. Returns the command's
 * exit code. */
int record(const char *directory, const char *name, char *const *command);

/* Whether a container of this name was started before. */
bool record_begun(const char *directory, const char *name);

/* Leaves the end of a container: its exit code, and whether it was told to stop before. */
void record_end(const char *directory, const char *name, int code, bool stopped);

#endif
