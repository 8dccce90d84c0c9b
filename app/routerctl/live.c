/*
 * Views that repeat. What can go wrong: the terminal must look as before when the view ends,
 * however it ends; so signals only set a flag here, and the way out is always the end of
 * live_run().
 */
#include "live.h"

#include "field.h"
#include "interrupt.h"
#include "table.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* The alternate screen keeps what the user had before; the cursor would only flicker. */
#define SCREEN_ENTER "\033[?1049h\033[?25l"
#define SCREEN_LEAVE "\033[?25h\033[?1049l"
#define SCREEN_HOME "\033[H"
#define SCREEN_CLEAR_LINE "\033[K"
#define SCREEN_CLEAR_BELOW "\033[J"

static struct termios saved_terminal;
static bool terminal_changed;

void live_keys(bool on) {
    if (on && isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &saved_terminal) == 0) {
        struct termios raw = saved_terminal;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        terminal_changed = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    } else if (!on && terminal_changed) {
        tcsetattr(STDIN_FILENO, TCSANOW, &saved_terminal);
        terminal_changed = false;
    }
}

double live_clock(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

bool live_wait(double seconds) {
    double end = live_clock() + seconds;

    while (!interrupt_pending()) {
        double left = end - live_clock();
        if (left <= 0)
            return true;
        struct pollfd watch[] = {{.fd = terminal_changed ? STDIN_FILENO : -1, .events = POLLIN},
                                 {.fd = interrupt_fd(), .events = POLLIN}};
        char key;
        if (poll(watch, 2, (int)(left * 1000) + 1) <= 0 || watch[0].revents == 0)
            continue;
        if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q')
            return false;
    }
    return false;
}

double live_rate(const json_t *now, const json_t *before, const char *key, double seconds) {
    double new_value = field_real(now, key), old_value = field_real(before, key);

    if (isnan(old_value) || !(seconds > 0))
        return (double)NAN;
    return (new_value >= old_value ? new_value - old_value : new_value) / seconds;
}

/* Draws the picture over the last one, cut to the window so that nothing scrolls. */
static void redraw(char *picture) {
    struct winsize window;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_row == 0)
        window = (struct winsize){.ws_row = 24, .ws_col = 80}; /* a serial line does not know */
    fputs(SCREEN_HOME, stdout);
    unsigned row = 0;
    for (char *line = picture, *end; *line != '\0' && row + 1 < window.ws_row; line = end + 1) {
        end = strchr(line, '\n');
        *end = '\0';
        text_clip(stdout, line, window.ws_col);
        *end = '\n';
        fputs(SCREEN_CLEAR_LINE "\n", stdout);
        row++;
    }
    fputs(SCREEN_CLEAR_BELOW, stdout);
}

static void print_title(const struct session *session, FILE *out, int interval, bool screen) {
    char clock[16];
    time_t now = time(NULL);
    struct tm local;

    strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&now, &local));
    if (screen)
        fprintf(out, "%s  %s  every %d s, q to quit\n\n", clock, session->socket, interval);
    else
        fprintf(out, "%s\n", clock);
}

struct picture {
    char *text; /* ends with a newline */
    size_t length;
};

static struct picture draw_picture(struct session *session, const struct match *match, int interval,
                                   live_draw_fn draw, const json_t *now, const json_t *before,
                                   double seconds) {
    struct picture picture = {0};
    FILE *out = open_memstream(&picture.text, &picture.length);

    if (out == NULL)
        abort();
    print_title(session, out, interval, session->terminal);
    draw(session, match, out, now, before, seconds);
    fclose(out);
    return picture;
}

static json_t *fetch_result(struct session *session, const struct match *match,
                            struct failure *failure) {
    return client_call(session->client, match->command->method, NULL, CLIENT_TIMEOUT, failure);
}

int live_run(struct session *session, const struct match *match, int interval, unsigned count,
             live_fetch_fn fetch, live_draw_fn draw) {
    bool screen = session->terminal && !session->json;
    json_t *before = NULL;
    struct picture last = {0};
    double last_time = 0, next_time = live_clock();
    unsigned drawn = 0;
    int status = STATUS_OK;

    interrupt_catch();
    live_keys(screen);
    if (screen)
        fputs(SCREEN_ENTER, stdout);
    for (;;) {
        struct failure failure;
        json_t *now =
            fetch ? fetch(session, match, &failure) : fetch_result(session, match, &failure);
        double time = live_clock();
        if (now == NULL) {
            if (screen)
                fputs(SCREEN_LEAVE, stdout);
            if (screen && last.text != NULL)
                fwrite(last.text, 1, last.length, stdout);
            screen = false;
            status = failure.interrupted ? STATUS_OK : (int)failure.status;
            session_failure(session, &failure);
            break;
        }
        if (session->json) {
            json_dumpf(now, stdout, JSON_COMPACT | JSON_REAL_PRECISION(15));
            putchar('\n');
            drawn++;
        } else if (screen || before != NULL) {
            free(last.text);
            last = draw_picture(session, match, interval, draw, now, before, time - last_time);
            if (screen)
                redraw(last.text);
            else
                printf("%s%s", drawn > 0 ? "\n" : "", last.text);
            drawn += before != NULL;
        }
        fflush(stdout);
        json_decref(before);
        before = now;
        last_time = time;
        if (count > 0 && drawn >= count)
            break;
        /* From the start, not from the last picture, so that the interval does not drift; but not
         * in a hurry after a long wait. */
        next_time += interval;
        if (next_time < time)
            next_time = time;
        if (ferror(stdout) || !live_wait(next_time - time))
            break;
    }
    if (screen) {
        fputs(SCREEN_LEAVE, stdout);
        if (last.text != NULL)
            fwrite(last.text, 1, last.length, stdout);
    }
    fflush(stdout);
    live_keys(false);
    if (!interrupt_ends_program())
        interrupt_clear();
    json_decref(before);
    free(last.text);
    return status;
}
