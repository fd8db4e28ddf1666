/* Notes each file that was brought to the disk: its path, a line each, before whoever had it synced goes on. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int sync_and_note(long call, int file) {
    char link[32], path[4096];
    int failed = (int)syscall(call, file);
    if (failed)
        return failed;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    const char *notes = getenv("SYNCS_FILE");
    int to = notes ? open(notes, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (length < 0 || to < 0)
        _exit(70);
    path[length++] = '\n';
    /* At once: others note theirs meanwhile. */
    if (write(to, path, (size_t)length) != length)
        _exit(70);
    close(to);
    return 0;
}

int fsync(int file) {
    return sync_and_note(SYS_fsync, file);
}

int fdatasync(int file) {
    return sync_and_note(SYS_fdatasync, file);
}
