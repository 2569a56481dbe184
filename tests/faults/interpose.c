/* Counts the calls by which a process changes files (or sends on a socket), over all its threads, and makes one of
 * them the last thing it does, or makes it fail. Built by tests/faults/crashes.py and loaded with LD_PRELOAD.
 *
 * FAULTS_CONTROL names a file of sizeof(struct control), shared with the test, which arms it while the process runs.
 * FAULTS_PREFIX says which calls count: those on paths that begin with it ("socket:" for sockets whose other end is
 * the port in `port`).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum action { NOTHING, KILL_BEFORE, KILL_AFTER, DISK_FULL, IO_ERROR, TORN, READ_ONLY };

struct control {
    _Atomic uint64_t count;   /* calls so far */
    _Atomic uint64_t fire_at; /* the call that is struck, counted from 1; 0: none */
    _Atomic uint32_t action;
    _Atomic uint32_t calls;   /* how many in a row fail: a full disk stays full */
    _Atomic uint32_t fired;   /* how often it struck */
    uint32_t port;
    _Atomic int64_t clock_s; /* how far the wall clock is ahead */
    char call[16];           /* what was struck first */
    char path[200];
    char kinds[16384]; /* the first letter of each call, in order; rmdir is d */
};

static struct control *control;
static const char *prefix = "";
static size_t prefix_length;

static long (*libc_syscall(void))(long, ...) {
    static long (*found)(long, ...);
    if (!found) found = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return found;
}
#define real_syscall libc_syscall()

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("FAULTS_CONTROL");
    if (getenv("FAULTS_PREFIX")) prefix = getenv("FAULTS_PREFIX");
    prefix_length = strlen(prefix);
    if (!name) return;
    int file = (int)real_syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    real_syscall(SYS_close, file);
    if (shared != MAP_FAILED) control = shared;
}

static int peer_is_watched(int file) {
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    if (getpeername(file, (struct sockaddr *)&peer, &size) || peer.sin_family != AF_INET) return 0;
    return ntohs(peer.sin_port) == control->port;
}

static int path_counts(const char *path) { return control && path && !strncmp(path, prefix, prefix_length); }

static int file_counts(int file, char *path) {
    char link[32];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long length = real_syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return path_counts(path) && (path[0] == '/' || peer_is_watched(file));
}

/* What is to happen at this call; the number of the call is taken here. */
static enum action struck(const char *call, const char *path) {
    uint64_t number = atomic_fetch_add(&control->count, 1) + 1;
    if (number <= sizeof control->kinds) control->kinds[number - 1] = call[1] == 'm' ? 'd' : call[0];
    uint64_t at = atomic_load(&control->fire_at);
    if (!at || number < at || number >= at + atomic_load(&control->calls)) return NOTHING;
    if (!atomic_fetch_add(&control->fired, 1)) {
        strncpy(control->call, call, sizeof control->call - 1);
        strncpy(control->path, path, sizeof control->path - 1);
    }
    enum action action = atomic_load(&control->action);
    if (action == KILL_BEFORE) kill(getpid(), SIGKILL);
    return action;
}

static int fails(enum action action) {
    if (action == DISK_FULL) errno = ENOSPC;
    if (action == IO_ERROR) errno = EIO;
    if (action == READ_ONLY) errno = EROFS;
    return action == DISK_FULL || action == IO_ERROR || action == READ_ONLY;
}

static long ends(enum action action, long result) {
    if (action == KILL_AFTER || action == TORN) kill(getpid(), SIGKILL);
    return result;
}

#define ON_FILE(name, file, number, ...)                                                                              \
    char path[PATH_MAX];                                                                                              \
    enum action action = file_counts(file, path) ? struck(name, path) : NOTHING;                                      \
    if (fails(action)) return -1;                                                                                     \
    return ends(action, real_syscall(number, file, ##__VA_ARGS__));

#define ON_BYTES(name, file, number, bytes, size, ...)                                                                \
    char path[PATH_MAX];                                                                                              \
    enum action action = file_counts(file, path) ? struck(name, path) : NOTHING;                                      \
    if (fails(action)) return -1;                                                                                     \
    return ends(action, real_syscall(number, file, bytes, action == TORN ? (size) / 2 : (size), ##__VA_ARGS__));

#define ON_PATH(name, path, number, ...)                                                                              \
    enum action action = path_counts(path) ? struck(name, path) : NOTHING;                                            \
    if (fails(action)) return -1;                                                                                     \
    return ends(action, real_syscall(number, ##__VA_ARGS__));

ssize_t write(int file, const void *bytes, size_t size) { ON_BYTES("write", file, SYS_write, bytes, size) }
ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) {
    ON_BYTES("pwrite", file, SYS_pwrite64, bytes, size, at)
}
ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at) {
    ON_BYTES("pwrite", file, SYS_pwrite64, bytes, size, at)
}
ssize_t writev(int file, const struct iovec *parts, int count) { ON_FILE("writev", file, SYS_writev, parts, count) }
ssize_t send(int file, const void *bytes, size_t size, int flags) {
    ON_BYTES("send", file, SYS_sendto, bytes, size, flags, NULL, 0)
}
ssize_t sendmsg(int file, const struct msghdr *message, int flags) {
    ON_FILE("sendmsg", file, SYS_sendmsg, message, flags)
}
int fsync(int file) { ON_FILE("fsync", file, SYS_fsync) }
int fdatasync(int file) { ON_FILE("fsync", file, SYS_fdatasync) }
int ftruncate(int file, off_t size) { ON_FILE("truncate", file, SYS_ftruncate, size) }
int ftruncate64(int file, off64_t size) { ON_FILE("truncate", file, SYS_ftruncate, size) }

int rename(const char *from, const char *to) { ON_PATH("rename", to, SYS_renameat, AT_FDCWD, from, AT_FDCWD, to) }
int renameat(int of, const char *from, int in, const char *to) { ON_PATH("rename", to, SYS_renameat, of, from, in, to) }
int renameat2(int of, const char *from, int in, const char *to, unsigned flags) {
    ON_PATH("rename", to, SYS_renameat2, of, from, in, to, flags)
}
int link(const char *from, const char *to) { ON_PATH("link", to, SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0) }
int linkat(int of, const char *from, int in, const char *to, int flags) {
    ON_PATH("link", to, SYS_linkat, of, from, in, to, flags)
}
int mkdir(const char *path, mode_t mode) { ON_PATH("mkdir", path, SYS_mkdirat, AT_FDCWD, path, mode) }
int mkdirat(int in, const char *path, mode_t mode) { ON_PATH("mkdir", path, SYS_mkdirat, in, path, mode) }
int unlink(const char *path) { ON_PATH("unlink", path, SYS_unlinkat, AT_FDCWD, path, 0) }
int rmdir(const char *path) { ON_PATH("rmdir", path, SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR) }

int unlinkat(int in, const char *name, int flags) {
    char path[PATH_MAX + NAME_MAX + 2];
    int counts = 0;
    if (in == AT_FDCWD || name[0] == '/') {
        snprintf(path, sizeof path, "%s", name);
        counts = path_counts(path);
    } else if (file_counts(in, path)) {
        strncat(path, "/", 2);
        strncat(path, name, NAME_MAX);
        counts = 1;
    }
    enum action action = counts ? struck("unlink", path) : NOTHING;
    if (fails(action)) return -1;
    return (int)ends(action, real_syscall(SYS_unlinkat, in, name, flags));
}

/* A file that is made: no room for its name is a full disk too. */
static int opened(int in, const char *path, int flags, mode_t mode) {
    enum action action = (flags & O_CREAT) && path_counts(path) ? struck("create", path) : NOTHING;
    if (fails(action)) return -1;
    return (int)ends(action, real_syscall(SYS_openat, in, path, flags, mode));
}

#define MODE_OF(flags, mode)                                                                                          \
    mode_t mode = 0;                                                                                                  \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                          \
        va_list rest;                                                                                                 \
        va_start(rest, flags);                                                                                        \
        mode = va_arg(rest, mode_t);                                                                                  \
        va_end(rest);                                                                                                 \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int openat(int in, const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(in, path, flags, mode); }
int openat64(int in, const char *path, int flags, ...) { MODE_OF(flags, mode) return opened(in, path, flags, mode); }

/* The wall clock as Python sees it; the monotonic one goes on. Libraries that wait until an instant hand it to the
 * kernel, whose clock is not moved: they are shown the kernel's.
 */
static time_t clock_s(void *caller) {
    Dl_info from;
    int64_t shift = control ? atomic_load(&control->clock_s) : 0;
    if (!shift || !dladdr(caller, &from)) return 0;
    const char *slash = strrchr(from.dli_fname, '/');
    const char *name = slash ? slash + 1 : from.dli_fname;
    return !strncmp(name, "libpython", 9) || !strncmp(name, "python", 6) ? (time_t)shift : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)real_syscall(SYS_clock_gettime, clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec += clock_s(__builtin_return_address(0));
    return result;
}

/* chDB's loader asks that the engine's names bind to the C library before they bind to us (RTLD_DEEPBIND). */
void *dlopen(const char *name, int flags) {
    void *(*next)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
    return next(name, flags & ~RTLD_DEEPBIND);
}

/* The engine renames without replacing by the bare system call. */
long syscall(long number, ...) {
    va_list rest;
    va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
    long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    if (number != SYS_renameat2) return real_syscall(number, a, b, c, d, e, f);
    const char *to = (const char *)d;
    ON_PATH("rename", to, number, a, b, c, d, e)
}
