/* Telling a container that was started again from one that was not. */
#ifndef STEPMEMO_STARTS_H
#define STEPMEMO_STARTS_H

/* Which start of this container this is, by the files that the earlier ones left. LATER where it was started
 * twice before; FIRST where nothing can be left, for then nothing was. */
enum start { FIRST_START, SECOND_START, LATER_START };
enum start start_next(const char *directory);

#endif
