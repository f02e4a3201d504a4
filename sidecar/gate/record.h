/* `gate -r NAME -- COMMAND…`: staying parent, so that others learn how the command ended. */
#ifndef STEPMEMO_RECORD_H
#define STEPMEMO_RECORD_H

/* Runs the command, passes signals on, leaves its exit code in `exit-NAME`, with ` stopped`
 * after it when a signal asked it to stop before. While this process lives it has
 * `lock-NAME` locked (flock): free without an exit code means that it was killed. Returns the command's
 * exit code. */
int record(const char *directory, const char *name, char *const *command);

#endif
