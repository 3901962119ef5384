/*
 * A layer between a program and its disk that remembers what was synced and what was not.
 *
 * Loaded with LD_PRELOAD, it passes every call on and records those that touch files under $POWERCUT_ROOT, in the order
 * in which the program could see them, in the file $POWERCUT_LOG: each write with its bytes, each change of a
 * directory, and beginning and end of each sync. `replay.py` computes from the log what a disk may hold after the power
 * went at any point of it. Kill the program, replay, put the result in place of the root: that was a power cut.
 *
 * The record keeps POSIX's promise and no more: a file's sync makes its bytes durable, not its name; a name is durable
 * when its directory was synced.
 *
 *   POWERCUT_ROOT           the directory that is watched (absolute)
 *   POWERCUT_LOG            where the record goes (appended to)
 *   POWERCUT_STDOUT=1       lines that the program writes to its standard output are recorded too, as what it promised,
 *                           after one that says `started`
 *   POWERCUT_NO_SYNC=1      record syncs but leave the real ones out (faster; only for a replay)
 *   POWERCUT_SYNC_DELAY_US  how long a sync takes at least, so that a kill hits programs in the middle of one
 *   POWERCUT_FAIL           a file; while it exists, calls fail as it says: lines of `write|sync SUFFIX ERRNO`, for files
 *                           whose names end in SUFFIX. A failing write writes nothing. A failing sync does not sync, and as on
 *                           Linux a later one does not make up for it: what was written before has to be written again
 *   POWERCUT_KILL           kills the process with SIGKILL at a point: `before|after CALL GLOB N`, the Nth call of that kind
 *                           on a path below the root that matches; CALL is open (only after), write, sync, link or unlink.
 *                           Several joined by ` ; ` are waited for one after another, and the last one kills. At a write the
 *                           path is followed by `=` and the first 4 bytes
 *
 * What it can't see it refuses loudly rather than miss: writable shared mappings and O_SYNC on watched files. Files
 * that end in -shm are SQLite's, are worthless after a cut, and are not watched. Programs that call the kernel without
 * libc (statically linked ones, Go, rustix's default backend, io_uring) can't be watched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum op { CREATE = 1, NEW, MKDIR, WRITE, TRUNCATE, EXTEND, SYNC_BEGIN, SYNC_END, LINK, RENAME, UNLINK, RMDIR, MARK, SYNC_FAIL };

struct record {
    uint32_t magic, op;
    uint64_t a, b;
    uint32_t name1, name2;
    uint64_t data;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char root[PATH_MAX];
static size_t root_len;
static dev_t root_dev;
static int log_fd = -1;
static int mark_stdout, no_sync;
static unsigned sync_delay_us;
static const char *fail_path;
static uint64_t syncs;

/* The steps of $POWERCUT_KILL. */
static struct step {
    char when[8], call[8], glob[256];
    int left;
} steps[8];
static int step_at, step_count;

/* The path below the root that `place` looked at last. */
static char placed[2 * PATH_MAX];

#define REAL(ret, name, ...) static ret (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
REAL(int, ftruncate, int, off_t);
REAL(int, truncate, const char *, off_t);
REAL(int, fallocate, int, int, off_t, off_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, renameat2, int, const char *, int, const char *, unsigned);
REAL(int, linkat, int, const char *, int, const char *, int);
REAL(int, unlinkat, int, const char *, int);
REAL(int, mkdirat, int, const char *, mode_t);
REAL(void *, mmap, void *, size_t, int, int, int, off_t);

static void die(const char *what, const char *path) {
    dprintf(2, "powercut: %s: %s\n", what, path ? path : "");
    abort();
}

static void *need(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) die("no such function", name);
    return found;
}

static void emit(enum op op, uint64_t a, uint64_t b, const char *name1, const char *name2, const struct iovec *data,
                 int count, size_t bytes);

static void read_steps(const char *text) {
    for (int used = 0; text && *text; text += used) {
        struct step *step = &steps[step_count];
        int given = step_count < 8 ? sscanf(text, "%7s %7s %255s %d%n", step->when, step->call, step->glob, &step->left, &used) : 0;
        if (given != 4) die("POWERCUT_KILL can't be read from", text);
        step_count++;
        used += (int)strspn(text + used, " ;");
    }
}

/* A call on a path is about to happen, or has. The lock is held. */
static void pass(const char *when, const char *call, const char *path) {
    if (step_at == step_count) return;
    struct step *step = &steps[step_at];
    if (strcmp(step->when, when) || strcmp(step->call, call) || fnmatch(step->glob, path, 0) || --step->left > 0) return;
    if (++step_at < step_count) return;
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* As `pass`, for a descriptor; `data` is what is written, or NULL. */
static void pass_fd(const char *when, const char *call, int fd, const struct iovec *data) {
    if (step_at == step_count) return;
    char link[64], path[PATH_MAX + 8];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < (ssize_t)root_len) return;
    path[n] = 0;
    if (data) snprintf(path + n, 8, "=%.*s", data->iov_len < 4 ? (int)data->iov_len : 4, (const char *)data->iov_base);
    pass(when, call, path + root_len);
}

static void start(void) {
    real_open = need("open64");
    real_openat = need("openat64");
    real_write = need("write");
    real_pwrite = need("pwrite64");
    real_writev = need("writev");
    real_pwritev = need("pwritev64");
    real_ftruncate = need("ftruncate64");
    real_truncate = need("truncate64");
    real_fallocate = need("fallocate64");
    real_fsync = need("fsync");
    real_fdatasync = need("fdatasync");
    real_renameat2 = need("renameat2");
    real_linkat = need("linkat");
    real_unlinkat = need("unlinkat");
    real_mkdirat = need("mkdirat");
    real_mmap = need("mmap64");
    const char *wanted = getenv("POWERCUT_ROOT"), *log = getenv("POWERCUT_LOG");
    if (!wanted || !log) return;
    struct stat at;
    if (!realpath(wanted, root) || stat(root, &at)) die("no root", wanted);
    root_len = strlen(root);
    root_dev = at.st_dev;
    int fd = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) die("can't write", log);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 700);
    close(fd);
    if (log_fd < 0) die("no descriptor for", log);
    mark_stdout = getenv("POWERCUT_STDOUT") != NULL;
    no_sync = getenv("POWERCUT_NO_SYNC") != NULL;
    const char *delay = getenv("POWERCUT_SYNC_DELAY_US");
    sync_delay_us = delay ? (unsigned)atoi(delay) : 0;
    fail_path = getenv("POWERCUT_FAIL");
    read_steps(getenv("POWERCUT_KILL"));
    struct iovec line = {"started\n", 8};
    if (mark_stdout) emit(MARK, 0, 0, NULL, NULL, &line, 1, line.iov_len);
}

__attribute__((constructor)) static void loaded(void) { pthread_once(&once, start); }

/* True if there is something to watch. */
static int watching(void) {
    pthread_once(&once, start);
    return log_fd >= 0;
}

static void emit(enum op op, uint64_t a, uint64_t b, const char *name1, const char *name2, const struct iovec *data,
                 int count, size_t bytes) {
    struct record head = {0x54554350, op, a, b, name1 ? strlen(name1) : 0, name2 ? strlen(name2) : 0, bytes};
    size_t total = sizeof head + head.name1 + head.name2 + bytes, at = 0;
    char *whole = malloc(total);
    if (!whole) die("no memory", NULL);
#define PUT(from, length) (memcpy(whole + at, (from), (length)), at += (length))
    PUT(&head, sizeof head);
    if (head.name1) PUT(name1, head.name1);
    if (head.name2) PUT(name2, head.name2);
    for (int i = 0; i < count && bytes; i++) {
        size_t part = data[i].iov_len < bytes ? data[i].iov_len : bytes;
        if (part) PUT(data[i].iov_base, part);
        bytes -= part;
    }
    /* One call, so that a kill leaves a whole record or, at the very end, a part that the replay ignores. */
    for (size_t done = 0; done < total;) {
        ssize_t n = real_write(log_fd, whole + done, total - done);
        if (n < 0 && errno != EINTR) die("can't write the log", strerror(errno));
        if (n > 0) done += (size_t)n;
    }
    free(whole);
}

/* The inodes under the root that were opened. One that was deleted may stay here: the replay knows it has no name. */
static uint64_t *set;
static size_t set_size, set_used;

static int set_find(uint64_t ino, int add) {
    if (add && set_used * 2 >= set_size) {
        size_t old_size = set_size;
        uint64_t *old = set;
        set_size = old_size ? old_size * 2 : 1024;
        set = calloc(set_size, sizeof *set);
        if (!set) die("no memory", NULL);
        set_used = 0;
        for (size_t i = 0; i < old_size; i++)
            if (old[i]) set_find(old[i], 1);
        free(old);
    }
    if (!set_size) return 0;
    size_t i = (ino * 0x9e3779b97f4a7c15u) % set_size;
    while (set[i] && set[i] != ino) i = (i + 1) % set_size;
    if (set[i]) return 1;
    if (add) {
        set[i] = ino;
        set_used++;
    }
    return 0;
}

static int ends(const char *name, const char *suffix) {
    size_t n = strlen(name), s = strlen(suffix);
    return n >= s && !strcmp(name + n - s, suffix);
}

static int under_root(const char *path) {
    return !strncmp(path, root, root_len) && (path[root_len] == '/' || !path[root_len]);
}

/* A watched descriptor's inode, or 0. The lock is held. */
static uint64_t watched(int fd) {
    struct stat at;
    if (fstat(fd, &at) || at.st_dev != root_dev) return 0;
    if (!S_ISREG(at.st_mode) && !S_ISDIR(at.st_mode)) return 0;
    return set_find(at.st_ino, 0) ? at.st_ino : 0;
}

/* Splits a path into the inode of its directory, if that is watched, and its last name. */
static uint64_t place(int dirfd, const char *path, char *name) {
    char joined[PATH_MAX], whole[PATH_MAX];
    size_t length = strlen(path);
    if (length >= PATH_MAX) return 0;
    if (path[0] == '/' || dirfd == AT_FDCWD) {
        strcpy(joined, path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
        ssize_t n = readlink(link, joined, PATH_MAX - 1);
        if (n < 0 || (size_t)n + length + 2 >= PATH_MAX) return 0;
        joined[n] = '/';
        strcpy(joined + n + 1, path);
    }
    for (size_t n = strlen(joined); n > 1 && joined[n - 1] == '/'; n--) joined[n - 1] = 0;
    char *slash = strrchr(joined, '/');
    const char *last = slash ? slash + 1 : joined;
    if (strlen(last) > NAME_MAX) return 0;
    strcpy(name, last);
    if (slash == joined) joined[1] = 0;
    else if (slash) *slash = 0;
    else strcpy(joined, ".");
    struct stat at;
    if (!realpath(joined, whole) || !under_root(whole) || stat(whole, &at)) return 0;
    if (ends(name, "-shm")) return 0;
    snprintf(placed, sizeof placed, "%s/%s", whole + root_len, name);
    return at.st_ino;
}

static uint64_t inode_at(int dirfd, const char *path) {
    struct stat at;
    return fstatat(dirfd, path, &at, AT_SYMLINK_NOFOLLOW) ? 0 : at.st_ino;
}

/* Whether the call is to fail now: gives the errno, or 0. */
static int fails(const char *what, int fd) {
    if (!fail_path || access(fail_path, F_OK)) return 0;
    char link[64], path[PATH_MAX], text[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    int control = real_open(fail_path, O_RDONLY | O_CLOEXEC);
    if (control < 0) return 0;
    n = read(control, text, sizeof text - 1);
    close(control);
    text[n < 0 ? 0 : n] = 0;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n"))) {
        char kind[16], suffix[256];
        int number;
        if (sscanf(line, "%15s %255s %d", kind, suffix, &number) == 3 && !strcmp(kind, what) && ends(path, suffix))
            return number;
    }
    return 0;
}

static int opened(int dirfd, const char *path, int flags, mode_t mode) {
    if (!watching()) return real_openat(dirfd, path, flags, mode);
    pthread_mutex_lock(&lock);
    char name[NAME_MAX + 1];
    int new_file = (flags & O_CREAT) && !inode_at(dirfd, path);
    int fd = real_openat(dirfd, path, flags, mode);
    int error = errno;
    char link[64], found[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = fd < 0 ? -1 : readlink(link, found, PATH_MAX - 1);
    if (n > 0) {
        found[n] = 0;
        struct stat at;
        if (under_root(found) && !ends(found, "-shm") && !fstat(fd, &at)) {
            if ((flags & O_ACCMODE) != O_RDONLY && (flags & O_DSYNC)) die("O_SYNC is not modelled", found);
            set_find(at.st_ino, 1);
            if ((flags & O_TMPFILE) == O_TMPFILE) {
                emit(NEW, at.st_ino, 0, NULL, NULL, NULL, 0, 0);
            } else if (new_file) {
                uint64_t dir = place(dirfd, path, name);
                emit(CREATE, dir, at.st_ino, name, NULL, NULL, 0, 0);
            } else if ((flags & O_TRUNC) && S_ISREG(at.st_mode)) {
                emit(TRUNCATE, at.st_ino, 0, NULL, NULL, NULL, 0, 0);
            }
            pass("after", "open", found + root_len);
        }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define OPEN_MODE(flags, mode)                            \
    mode_t mode = 0;                                      \
    if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) { \
        va_list list;                                     \
        va_start(list, flags);                            \
        mode = (mode_t)va_arg(list, int);                 \
        va_end(list);                                     \
    }

int open(const char *path, int flags, ...) { OPEN_MODE(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { OPEN_MODE(flags, mode) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dir, const char *path, int flags, ...) { OPEN_MODE(flags, mode) return opened(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { OPEN_MODE(flags, mode) return opened(dir, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* Writes at `offset`, or where the file stands if that is -1. */
static ssize_t written(int fd, const struct iovec *parts, int count, off_t offset, int vectored) {
    pthread_once(&once, start);
    int watch = log_fd >= 0 && fd != log_fd;
    if (watch) pthread_mutex_lock(&lock);
    uint64_t ino = watch ? watched(fd) : 0;
    size_t wanted = 0;
    for (int i = 0; i < count; i++) wanted += parts[i].iov_len;
    if (watch && fd == 1 && mark_stdout) emit(MARK, 0, 0, NULL, NULL, parts, count, wanted);
    if (ino) pass_fd("before", "write", fd, parts);
    int error = ino ? fails("write", fd) : 0;
    ssize_t n;
    if (error) n = -1, errno = error;
    else if (offset >= 0) n = vectored ? real_pwritev(fd, parts, count, offset) : real_pwrite(fd, parts->iov_base, wanted, offset);
    else n = vectored ? real_writev(fd, parts, count) : real_write(fd, parts->iov_base, wanted);
    error = errno;
    if (ino && n > 0) {
        /* After an append the position tells where it went. */
        uint64_t at = offset >= 0 ? (uint64_t)offset : (uint64_t)(lseek(fd, 0, SEEK_CUR) - n);
        emit(WRITE, ino, at, NULL, NULL, parts, count, (size_t)n);
        pass_fd("after", "write", fd, parts);
    }
    if (watch) pthread_mutex_unlock(&lock);
    errno = error;
    return n;
}

ssize_t write(int fd, const void *data, size_t size) {
    struct iovec part = {(void *)data, size};
    return written(fd, &part, 1, -1, 0);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    struct iovec part = {(void *)data, size};
    return written(fd, &part, 1, offset, 0);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return written(fd, parts, count, -1, 1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return written(fd, parts, count, offset, 1); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) { return written(fd, parts, count, offset, 1); }

/* Callers fall back to read and write. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
    (void)in, (void)in_at, (void)out, (void)out_at, (void)size, (void)flags;
    errno = EXDEV;
    return -1;
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    (void)out, (void)in, (void)at, (void)size;
    errno = EINVAL;
    return -1;
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) { return sendfile(out, in, at, size); }

int ftruncate(int fd, off_t size) {
    if (!watching()) return real_ftruncate(fd, size);
    pthread_mutex_lock(&lock);
    uint64_t ino = watched(fd);
    int result = real_ftruncate(fd, size), error = errno;
    if (ino && !result) emit(TRUNCATE, ino, (uint64_t)size, NULL, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int truncate(const char *path, off_t size) {
    if (!watching()) return real_truncate(path, size);
    pthread_mutex_lock(&lock);
    char name[NAME_MAX + 1];
    uint64_t dir = place(AT_FDCWD, path, name);
    int result = real_truncate(path, size), error = errno;
    if (dir && !result) emit(TRUNCATE, inode_at(AT_FDCWD, path), (uint64_t)size, NULL, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

int fallocate(int fd, int mode, off_t offset, off_t size) {
    if (!watching()) return real_fallocate(fd, mode, offset, size);
    pthread_mutex_lock(&lock);
    uint64_t ino = watched(fd);
    if (ino && mode) die("fallocate with a mode is not modelled", NULL);
    int result = real_fallocate(fd, mode, offset, size), error = errno;
    if (ino && !result) emit(EXTEND, ino, (uint64_t)(offset + size), NULL, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t size) { return fallocate(fd, mode, offset, size); }
int posix_fallocate(int fd, off_t offset, off_t size) { return fallocate(fd, 0, offset, size) ? errno : 0; }
int posix_fallocate64(int fd, off64_t offset, off64_t size) { return posix_fallocate(fd, offset, size); }

static int synced(int fd, int (*real)(int)) {
    pthread_mutex_lock(&lock);
    uint64_t ino = watched(fd), id = 0;
    if (ino) pass_fd("before", "sync", fd, NULL);
    int error = ino ? fails("sync", fd) : 0;
    /* Only what was written before the call is promised, and only once it has returned. */
    if (ino && !error) emit(SYNC_BEGIN, id = ++syncs | (uint64_t)getpid() << 32, ino, NULL, NULL, NULL, 0, 0);
    if (error) emit(SYNC_FAIL, ino, 0, NULL, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    if (error) return errno = error, -1;
    if (ino && sync_delay_us) usleep(sync_delay_us);
    int result = ino && no_sync ? 0 : real(fd);
    error = errno;
    if (id && !result) {
        pthread_mutex_lock(&lock);
        emit(SYNC_END, id, ino, NULL, NULL, NULL, 0, 0);
        pass_fd("after", "sync", fd, NULL);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}
int fsync(int fd) { return watching() ? synced(fd, real_fsync) : real_fsync(fd); }
int fdatasync(int fd) { return watching() ? synced(fd, real_fdatasync) : real_fdatasync(fd); }
/* Starts writing, promises nothing. */
int sync_file_range(int fd, off64_t offset, off64_t size, unsigned flags) {
    (void)fd, (void)offset, (void)size, (void)flags;
    return 0;
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    if (!watching()) return real_renameat2(from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&lock);
    char name1[NAME_MAX + 1], name2[NAME_MAX + 1];
    uint64_t dir1 = place(from_dir, from, name1), dir2 = place(to_dir, to, name2);
    if ((dir1 || dir2) && (flags & ~(unsigned)RENAME_NOREPLACE)) die("this rename is not modelled", from);
    if (!dir1 != !dir2) die("a rename over the root's edge is not modelled", from);
    uint64_t ino = inode_at(from_dir, from);
    int result = real_renameat2(from_dir, from, to_dir, to, flags), error = errno;
    struct iovec what = {&ino, sizeof ino};
    if (dir1 && !result) emit(RENAME, dir1, dir2, name1, name2, &what, 1, sizeof ino);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) { return renameat2(from_dir, from, to_dir, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    if (!watching()) return real_linkat(from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&lock);
    char name[NAME_MAX + 1];
    uint64_t dir = place(to_dir, to, name);
    if (dir) pass("before", "link", placed);
    int result = real_linkat(from_dir, from, to_dir, to, flags), error = errno;
    if (dir && !result) {
        emit(LINK, dir, inode_at(to_dir, to), name, NULL, NULL, 0, 0);
        pass("after", "link", placed);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int dirfd, const char *path, int flags) {
    if (!watching()) return real_unlinkat(dirfd, path, flags);
    pthread_mutex_lock(&lock);
    char name[NAME_MAX + 1];
    uint64_t dir = place(dirfd, path, name);
    if (dir) pass("before", "unlink", placed);
    int result = real_unlinkat(dirfd, path, flags), error = errno;
    if (dir && !result) {
        emit(flags & AT_REMOVEDIR ? RMDIR : UNLINK, dir, 0, name, NULL, NULL, 0, 0);
        pass("after", "unlink", placed);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int dirfd, const char *path, mode_t mode) {
    if (!watching()) return real_mkdirat(dirfd, path, mode);
    pthread_mutex_lock(&lock);
    char name[NAME_MAX + 1];
    uint64_t dir = place(dirfd, path, name);
    int result = real_mkdirat(dirfd, path, mode), error = errno;
    if (dir && !result) emit(MKDIR, dir, inode_at(dirfd, path), name, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    pthread_once(&once, start);
    if (log_fd >= 0 && fd >= 0 && (protection & PROT_WRITE) && (flags & MAP_SHARED)) {
        pthread_mutex_lock(&lock);
        uint64_t ino = watched(fd);
        pthread_mutex_unlock(&lock);
        if (ino) die("a writable shared mapping is not modelled", NULL);
    }
    return real_mmap(at, size, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset) { return mmap(at, size, protection, flags, fd, offset); }
