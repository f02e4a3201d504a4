/* Putting the entrypoint where containers with other images find it. */
#ifndef STEPMEMO_INSTALL_H
#define STEPMEMO_INSTALL_H

#include <stdbool.h>

/* Copies the running program to DIRECTORY/entrypoint, executable for all. False on failure, with errno. */
bool install(const char *directory);

#endif
