/* Preloaded into a process: its n-th file operation below a folder fails, or the process gets a signal there.
 *
 * Operations that grow a file system: open for writing, write, fsync, mkdir, link, symlink. Others that change it: truncate,
 * chmod, rename, unlink, rmdir. Operations that read: open for reading, read. A killed write has written half of its bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { GROWS = 1, CHANGES = 2, READS = 4, KILL = -SIGKILL, MOST_DESCRIPTORS = 65536 };

static char folder[4096];
static size_t folder_length;
static long at, counted;
static int action, kinds, lasts;
static char below[MOST_DESCRIPTORS];

/* Let the `number`-th operation of these kinds below `path` fail with `error`, or signal the process, if
 * negative, whose operation goes on if the process does; 0 counts alone. With `and_after` all that follow fail too. */
void faults_arm(const char *path, long number, int error, int of_kinds, int and_after) {
    strncpy(folder, path, sizeof folder - 1);
    folder_length = strlen(folder);
    memset(below, 0, sizeof below);
    counted = 0;
    at = number;
    action = error;
    kinds = of_kinds;
    lasts = and_after;
}

long faults_counted(void) { return counted; }

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_below(const char *path) { return folder_length && path && !strncmp(path, folder, folder_length); }
static int is_tracked(int fd) { return folder_length && fd >= 0 && fd < MOST_DESCRIPTORS && below[fd]; }
static int is_below_at(int dirfd, const char *path) {
    return path && (path[0] == '/' ? is_below(path) : is_tracked(dirfd));
}
static void track(int fd, int is) {
    if (fd >= 0 && fd < MOST_DESCRIPTORS) below[fd] = (char)is;
}
static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether this operation is the one that fails; a kill is left to the caller when it has something to do before. */
static int due(int concerned, int kind) {
    if (!concerned || !(kinds & kind)) return 0;
    long number = __sync_add_and_fetch(&counted, 1);
    if (!at || number < at || (number > at && !lasts)) return 0;
    if (action < 0 && action != KILL) {
        kill(getpid(), -action);
        return 0;
    }
    if (action != KILL) errno = action;
    return 1;
}
static int fails(int concerned, int kind) {
    if (!due(concerned, kind)) return 0;
    if (action == KILL) die();
    return 1;
}
static int kind_of(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC) ? GROWS : READS; }

#define OPEN(name, declaration, arguments, concerned)                                                              \
    int name declaration {                                                                                         \
        mode_t mode = 0;                                                                                           \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                       \
            va_list more;                                                                                          \
            va_start(more, flags);                                                                                 \
            mode = va_arg(more, mode_t);                                                                           \
            va_end(more);                                                                                          \
        }                                                                                                          \
        int is = concerned;                                                                                        \
        if (fails(is, kind_of(flags))) return -1;                                                                  \
        int fd = NEXT(name) arguments;                                                                             \
        track(fd, is);                                                                                             \
        return fd;                                                                                                 \
    }
OPEN(open, (const char *path, int flags, ...), (path, flags, mode), is_below(path))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), is_below(path))
OPEN(openat, (int dirfd, const char *path, int flags, ...), (dirfd, path, flags, mode), is_below_at(dirfd, path))
OPEN(openat64, (int dirfd, const char *path, int flags, ...), (dirfd, path, flags, mode), is_below_at(dirfd, path))

int close(int fd) {
    track(fd, 0);
    return NEXT(close)(fd);
}

ssize_t write(int fd, const void *content, size_t length) {
    if (due(is_tracked(fd), GROWS)) {
        if (action != KILL) return -1;
        NEXT(write)(fd, content, length / 2);
        die();
    }
    return NEXT(write)(fd, content, length);
}

#define SIMPLE(type, name, declaration, arguments, concerned, kind)                                                \
    type name declaration {                                                                                        \
        if (fails(concerned, kind)) return -1;                                                                     \
        return NEXT(name) arguments;                                                                               \
    }
SIMPLE(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), is_tracked(fd), GROWS)
SIMPLE(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), is_tracked(fd), GROWS)
SIMPLE(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), is_tracked(fd), GROWS)
SIMPLE(ssize_t, read, (int fd, void *b, size_t n), (fd, b, n), is_tracked(fd), READS)
SIMPLE(ssize_t, pread, (int fd, void *b, size_t n, off_t o), (fd, b, n, o), is_tracked(fd), READS)
SIMPLE(ssize_t, pread64, (int fd, void *b, size_t n, off64_t o), (fd, b, n, o), is_tracked(fd), READS)
SIMPLE(int, fsync, (int fd), (fd), is_tracked(fd), GROWS)
SIMPLE(int, fdatasync, (int fd), (fd), is_tracked(fd), GROWS)
SIMPLE(int, ftruncate, (int fd, off_t n), (fd, n), is_tracked(fd), CHANGES)
SIMPLE(int, ftruncate64, (int fd, off64_t n), (fd, n), is_tracked(fd), CHANGES)
SIMPLE(int, chmod, (const char *p, mode_t m), (p, m), is_below(p), CHANGES)
SIMPLE(int, fchmodat, (int d, const char *p, mode_t m, int f), (d, p, m, f), is_below_at(d, p), CHANGES)
SIMPLE(int, rename, (const char *a, const char *b), (a, b), is_below(b), CHANGES)
SIMPLE(int, renameat, (int d, const char *a, int e, const char *b), (d, a, e, b), is_below_at(e, b), CHANGES)
SIMPLE(int, mkdir, (const char *p, mode_t m), (p, m), is_below(p), GROWS)
SIMPLE(int, mkdirat, (int d, const char *p, mode_t m), (d, p, m), is_below_at(d, p), GROWS)
SIMPLE(int, unlink, (const char *p), (p), is_below(p), CHANGES)
SIMPLE(int, unlinkat, (int d, const char *p, int f), (d, p, f), is_below_at(d, p), CHANGES)
SIMPLE(int, rmdir, (const char *p), (p), is_below(p), CHANGES)
SIMPLE(int, link, (const char *a, const char *b), (a, b), is_below(b), GROWS)
SIMPLE(int, linkat, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f), is_below_at(e, b), GROWS)
SIMPLE(int, symlink, (const char *a, const char *b), (a, b), is_below(b), GROWS)
SIMPLE(int, symlinkat, (const char *a, int d, const char *b), (a, d, b), is_below_at(d, b), GROWS)
