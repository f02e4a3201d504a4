/* Waiting, without a wake-up in between, for a signal, a change in a directory, or a point in time. */
#ifndef STEPMEMO_WAIT_H
#define STEPMEMO_WAIT_H

#include <stdbool.h>

/* Milliseconds on a clock that only goes forward. */
long now_ms(void);

/* An inotify descriptor, or -1 where the kernel has none left for this user. */
int watch_open(void);
/* Watches for files that appear or were closed by their last writer; false where that cannot be. */
bool watch_directory(int watch, const char *directory);

/* Returns when a held signal, or news in a watched directory (which it then forgets), is there, or at `until`
 * (in now_ms), or now and then for nothing. `watch` may be -1. */
void wait_for_news(int watch, long until);

#endif
