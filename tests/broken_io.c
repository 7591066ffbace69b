// Breaks one of a program's calls on files, for tests: preloaded, it stands between the program and the C library.
//
// EMM_IO_UNDER  only calls on paths that begin so count
// EMM_IO_AT     the call that breaks, from 1 on; 0: none, all are counted
// EMM_IO_HOW    fail: it returns an error; tear: half of it is done, and all calls after it fail; kill: half of it is
//               done, and the process is killed; short: it and all others move half of what they are asked to
// EMM_IO_LOG    gets what was broken, or at the end how many calls there were
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long calls;
static char under[4096], cwd[4096], log_path[4096], how = 'n';
static long at;

__attribute__((constructor)) static void begin(void) {
    const char *value = getenv("EMM_IO_UNDER");
    if (!value) return;
    strncpy(under, value, sizeof under - 1);
    if ((value = getenv("EMM_IO_LOG"))) strncpy(log_path, value, sizeof log_path - 1);
    if ((value = getenv("EMM_IO_AT"))) at = atol(value);
    if ((value = getenv("EMM_IO_HOW"))) how = value[0];
    syscall(SYS_getcwd, cwd, sizeof cwd);
}

static void say(const char *text) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, log_path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0) return;
    syscall(SYS_write, fd, text, strlen(text));
    syscall(SYS_close, fd);
}

__attribute__((destructor)) static void end(void) {
    char text[32];
    snprintf(text, sizeof text, "%ld", (long)calls);
    if (under[0] && at == 0) say(text);
}

static int path_counts(const char *path) {
    char whole[8192];
    if (!under[0] || !path) return 0;
    if (path[0] != '/') {
        snprintf(whole, sizeof whole, "%s/%s", cwd, path);
        path = whole;
    }
    return strncmp(path, under, strlen(under)) == 0;
}

static _Thread_local char fd_path[4096]; // of the last file that was asked for

static int fd_counts(int fd) {
    char link[64];
    if (!under[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, fd_path, sizeof fd_path - 1);
    if (n <= 0) return 0;
    fd_path[n] = 0;
    return fd_path[0] == '/' && path_counts(fd_path); // else a pipe
}

// What happens to a call: 0 as it is, 'f' it fails, 't' half of it is done, 'k' half of it and then no more.
static char fate(const char *name, const char *what) {
    long n = atomic_fetch_add(&calls, 1) + 1;
    if (how == 's') return 't';
    if (at == 0 || n < at) return 0;
    if (n > at) return how == 't' ? 'f' : 0;
    char text[8400];
    snprintf(text, sizeof text, "%s %s", name, what);
    say(text);
    return how;
}

static void die(void) { syscall(SYS_kill, syscall(SYS_getpid), SIGKILL); }

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

// A call that is done or not: torn it is not done, and killed neither. `bad`: what it returns then.
#define WHOLE(name, counts, what, error, bad, call)          \
    do {                                                     \
        if (counts) {                                        \
            char f = fate(#name, what);                      \
            if (f == 'k') die();                             \
            if (f == 'f' || (f == 't' && how == 't')) {      \
                errno = error;                               \
                return bad;                                  \
            }                                                \
        }                                                    \
        return call;                                         \
    } while (0)

// A call that moves `n` bytes.
#define MOVING(name, fd, error, n, half, call)               \
    do {                                                     \
        if (fd_counts(fd)) {                                 \
            char f = fate(#name, fd_path);                        \
            if (f == 'f') {                                  \
                errno = error;                               \
                return -1;                                   \
            }                                                \
            if (f == 't' || f == 'k') {                      \
                ssize_t moved = n > 1 ? half : call;         \
                if (f == 'k') die();                         \
                return moved;                                \
            }                                                \
        }                                                    \
        return call;                                         \
    } while (0)

#define OPEN(name)                                                                      \
    int name(const char *path, int flags, ...) {                                        \
        REAL(name);                                                                     \
        va_list rest;                                                                   \
        va_start(rest, flags);                                                          \
        int mode = va_arg(rest, int);                                                   \
        va_end(rest);                                                                   \
        int error = flags & O_CREAT ? ENOSPC : EIO;                                     \
        WHOLE(name, path_counts(path), path, error, -1, real(path, flags, mode));       \
    }
OPEN(open)
OPEN(open64)

int statx(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict buf) {
    REAL(statx);
    // Rust asks for nothing to see whether there is such a call, which the declaration forbids.
    const char *volatile given = path;
    const char *of = given ? given : "";
    int counts = of[0] ? path_counts(of) : given && fd_counts(dir);
    WHOLE(statx, counts, of, EIO, -1, real(dir, given, flags, mask, buf));
}

ssize_t read(int fd, void *to, size_t n) {
    REAL(read);
    MOVING(read, fd, EIO, n, real(fd, to, n / 2), real(fd, to, n));
}
ssize_t pread64(int fd, void *to, size_t n, off64_t from) {
    REAL(pread64);
    MOVING(pread64, fd, EIO, n, real(fd, to, n / 2, from), real(fd, to, n, from));
}
ssize_t write(int fd, const void *from, size_t n) {
    REAL(write);
    MOVING(write, fd, ENOSPC, n, real(fd, from, n / 2), real(fd, from, n));
}
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t to) {
    REAL(pwrite64);
    MOVING(pwrite64, fd, ENOSPC, n, real(fd, from, n / 2, to), real(fd, from, n, to));
}
int fsync(int fd) {
    REAL(fsync);
    WHOLE(fsync, fd_counts(fd), fd_path, EIO, -1, real(fd));
}
int rename(const char *from, const char *to) {
    REAL(rename);
    WHOLE(rename, path_counts(to), to, ENOSPC, -1, real(from, to));
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    REAL(renameat2);
    WHOLE(renameat2, path_counts(to), to, ENOSPC, -1, real(a, from, b, to, flags));
}
int unlink(const char *path) {
    REAL(unlink);
    WHOLE(unlink, path_counts(path), path, EIO, -1, real(path));
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    WHOLE(mkdir, path_counts(path), path, ENOSPC, -1, real(path, mode));
}
int flock(int fd, int how_) {
    REAL(flock);
    WHOLE(flock, fd_counts(fd), fd_path, EIO, -1, real(fd, how_));
}
off64_t lseek64(int fd, off64_t to, int from) {
    REAL(lseek64);
    WHOLE(lseek64, fd_counts(fd), fd_path, EIO, -1, real(fd, to, from));
}
int fcntl(int fd, int what, ...) {
    REAL(fcntl);
    va_list rest;
    va_start(rest, what);
    long with = va_arg(rest, long);
    va_end(rest);
    int counts = what == F_DUPFD_CLOEXEC && fd_counts(fd);
    WHOLE(fcntl, counts, fd_path, EMFILE, -1, real(fd, what, with));
}
void *mmap64(void *at_, size_t n, int allowed, int flags, int fd, off64_t from) {
    REAL(mmap64);
    WHOLE(mmap64, fd >= 0 && fd_counts(fd), fd_path, ENOMEM, MAP_FAILED, real(at_, n, allowed, flags, fd, from));
}
char *realpath(const char *restrict path, char *restrict to) {
    REAL(realpath);
    WHOLE(realpath, path_counts(path), path, EIO, NULL, real(path, to));
}
DIR *opendir(const char *path) {
    REAL(opendir);
    WHOLE(opendir, path_counts(path), path, EIO, NULL, real(path));
}
struct dirent64 *readdir64(DIR *folder) {
    REAL(readdir64);
    WHOLE(readdir64, fd_counts(dirfd(folder)), fd_path, EIO, NULL, real(folder));
}
int openat64(int dir, const char *path, int flags, ...) {
    REAL(openat64);
    WHOLE(openat64, fd_counts(dir) || path_counts(path), path, EIO, -1, real(dir, path, flags, 0644));
}
int unlinkat(int dir, const char *path, int flags) {
    REAL(unlinkat);
    WHOLE(unlinkat, fd_counts(dir) || path_counts(path), path, EIO, -1, real(dir, path, flags));
}
