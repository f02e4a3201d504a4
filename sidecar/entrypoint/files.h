/* Files that several containers, under several users, write and read: never seen half-written. */
#ifndef STEPMEMO_FILES_H
#define STEPMEMO_FILES_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct path {
    char text[PATH_MAX];
};
/* DIRECTORY/PREFIXname; an empty path, which names no file, when that is too long. */
struct path path_in(const char *directory, const char *prefix, const char *name);

/* A file being written under another name in the directory that it will appear in. */
struct aside {
    int fd; /* -1: it could not be made, errno says why */
    struct path path;
};
/* Opens a new file; its mode is `mode` whatever the umask. */
struct aside aside_open(const char *directory, mode_t mode);
bool aside_write(const struct aside *aside, const char *bytes, size_t length);
/* Lets the file appear as `final`, whole; the descriptor stays open. With ONCE it gives way to a file that is
 * there already (false, EEXIST); with REPLACE it takes its place. */
enum publish { ONCE, REPLACE };
bool aside_publish(const struct aside *aside, const char *final, enum publish how);
/* Closes it, and removes it unless it was published. */
void aside_end(struct aside *aside);

/* Makes an empty file; false with EEXIST where somebody was first, or with what else stands in the way. */
bool file_make(const char *path);
/* Writes a small file whole, readable by all. False on failure, with errno. */
bool file_write(const char *directory, const char *final, const char *text, enum publish how);
/* Reads at most size-1 bytes as a string without blanks at its end; -1 with errno, else the length. */
ssize_t file_read(const char *path, char *text, size_t size);

#endif
