/* The process 1 of containers run with --init: starts the program, passes signals on to it, reaps whatever is orphaned,
 * ends with the program's exit code (128 + N for signal N; 127: no such program, 126: not executable).
 *
 *     reaper [--] PROGRAM [ARGUMENT...]
 *
 * Freestanding, so that it runs in any root file system; two architectures. Built by `build` beside it.
 */

typedef unsigned long word;

enum { SIG_DFL = 0, SIG_BLOCK = 0, SIG_SETMASK = 2, WNOHANG = 1 };
enum { SIGCHLD = 17, SIGTTIN = 21, SIGTTOU = 22 };
enum { ENOENT = 2, EACCES = 13, ENOTDIR = 20, TIOCSPGRP = 0x5410 };

/* What the kernel calls struct sigaction and, in its first bytes, siginfo_t. */
struct action { word handler, flags, restorer, mask; };
struct info { int number; int rest[31]; };

#if defined(__x86_64__)
enum { NR_write = 1, NR_rt_sigaction = 13, NR_rt_sigprocmask = 14, NR_ioctl = 16, NR_clone = 56, NR_execve = 59,
       NR_wait4 = 61, NR_kill = 62, NR_exit_group = 231, NR_setpgid = 109, NR_getpid = 39,
       NR_rt_sigtimedwait = 128 };

static long call(long n, word a, word b, word c, word d)
{
    long result;
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
#elif defined(__aarch64__)
enum { NR_write = 64, NR_rt_sigaction = 134, NR_rt_sigprocmask = 135, NR_ioctl = 29, NR_clone = 220, NR_execve = 221,
       NR_wait4 = 260, NR_kill = 129, NR_exit_group = 94, NR_setpgid = 154, NR_getpid = 172,
       NR_rt_sigtimedwait = 137 };

static long call(long n, word a, word b, word c, word d)
{
    register word x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    register word x3 __asm__("x3") = d, x4 __asm__("x4") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}

__asm__(".globl _start\n_start: mov x0, sp\n bl run\n");
#endif

static word length(const char *s)
{
    word n = 0;
    while (s[n])
        n++;
    return n;
}

static void say(const char *s)
{
    call(NR_write, 2, (word)s, length(s), 0);
}

static void leave(long code)
{
    for (;;)
        call(NR_exit_group, code, 0, 0, 0);
}

static const char *search_path(char **environment)
{
    for (; *environment; environment++) {
        const char *v = *environment;
        if (v[0] == 'P' && v[1] == 'A' && v[2] == 'T' && v[3] == 'H' && v[4] == '=')
            return v + 5;
    }
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

static int has_slash(const char *s)
{
    for (; *s; s++)
        if (*s == '/')
            return 1;
    return 0;
}

/* As execvp(3): a permission error is remembered while the search goes on. Returns the error to report. */
static long execute(char **arguments, char **environment)
{
    static char path[4096];
    const char *name = arguments[0], *directory = search_path(environment);
    long failure = -ENOENT;
    if (has_slash(name))
        return call(NR_execve, (word)name, (word)arguments, (word)environment, 0);
    for (;;) {
        word n = 0, i;
        while (*directory && *directory != ':' && n < sizeof path - 2)
            path[n++] = *directory++;
        if (!n)
            path[n++] = '.';
        path[n++] = '/';
        for (i = 0; name[i] && n < sizeof path - 1; i++)
            path[n++] = name[i];
        path[n] = 0;
        long result = call(NR_execve, (word)path, (word)arguments, (word)environment, 0);
        if (result != -ENOENT && result != -ENOTDIR) {
            failure = result;
            if (result != -EACCES)
                return failure;
        }
        if (*directory != ':')
            return failure;
        directory++;
    }
}

/* The program gets a process group of its own, in the foreground where there is a terminal; all signals are blocked
 * until then, or changing the foreground from the background would stop us. */
static void become_program(char **arguments, char **environment)
{
    static const word none = 0;
    int group = (int)call(NR_getpid, 0, 0, 0, 0);
    call(NR_setpgid, 0, 0, 0, 0);
    call(NR_ioctl, 0, TIOCSPGRP, (word)&group, 0);
    call(NR_rt_sigprocmask, SIG_SETMASK, (word)&none, 0, sizeof none);
    long failure = execute(arguments, environment);
    say("reaper: ");
    say(arguments[0]);
    say(failure == -ENOENT || failure == -ENOTDIR ? ": no such file or directory\n" : ": cannot be executed\n");
    leave(failure == -ENOENT || failure == -ENOTDIR ? 127 : 126);
}

static void set_action(int number, word handler)
{
    struct action action = {handler, 0, 0, 0};
    call(NR_rt_sigaction, number, (word)&action, 0, sizeof action.mask);
}

/* Collect all ended children; leave with the program's code if it is among them. */
static void reap(long program)
{
    for (;;) {
        int status = 0;
        long pid = call(NR_wait4, (word)-1L, (word)&status, WNOHANG, 0);
        if (pid <= 0)
            return;
        if (pid == program) {
            while (call(NR_wait4, (word)-1L, 0, WNOHANG, 0) > 0)
                ;
            leave(status & 0x7f ? 128 + (status & 0x7f) : (status >> 8) & 0xff);
        }
    }
}

__attribute__((used)) void run(word *stack)
{
    long count = (long)stack[0];
    char **arguments = (char **)(stack + 1), **environment = arguments + count + 1;
    static const word all = ~0UL;
    if (count > 1 && arguments[1][0] == '-' && arguments[1][1] == '-' && !arguments[1][2])
        arguments++, count--;
    if (count < 2) {
        say("usage: reaper [--] PROGRAM [ARGUMENT...]\n");
        leave(2);
    }
    call(NR_rt_sigprocmask, SIG_BLOCK, (word)&all, 0, sizeof all);
    set_action(SIGCHLD, SIG_DFL);
    long program = call(NR_clone, SIGCHLD, 0, 0, 0);
    if (!program)
        become_program(arguments + 1, environment);
    if (program < 0) {
        say("reaper: cannot fork\n");
        leave(1);
    }
    for (;;) {
        struct info info;
        long number = call(NR_rt_sigtimedwait, (word)&all, (word)&info, 0, sizeof all);
        if (number == SIGCHLD)
            reap(program);
        else if (number > 0 && number != SIGTTIN && number != SIGTTOU)
            call(NR_kill, program, number, 0, 0);
    }
}
