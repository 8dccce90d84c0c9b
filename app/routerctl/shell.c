/*
 * The shell: libedit for the line, the command table for everything else.
 *
 * Ctrl-C must never end the shell. libedit's own reading would retry after a signal, so characters
 * are waited for here: a pending interrupt ends the line, and with it the command being typed.
 */
#include "shell.h"

#include "field.h"
#include "interrupt.h"
#include "table.h"
#include "words.h"

#include <histedit.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

enum { HISTORY_SIZE = 1000, PROMPT_TIMEOUT = 2, CTRL_D = 4 };

/* "? show" and "show ?" mean "help show". */
static void question_to_help(struct words *words) {
    size_t last = words->count - 1, at = words->count;

    if (words->count > 0 && strcmp(words->list[0], "?") == 0)
        at = 0;
    else if (words->count > 0 && strcmp(words->list[last], "?") == 0)
        at = last;
    if (at == words->count)
        return;
    words_remove(words, at);
    words_add(words, "help", 4);
    char *help = words->list[last];
    memmove(&words->list[1], &words->list[0], last * sizeof(*words->list));
    words->list[0] = help;
}

/* Runs one line. A -j before or behind the command asks for JSON this once. */
static int run_line(struct session *session, const char *line) {
    struct words words = words_split(line);
    bool json = session->json;
    int status = STATUS_OK;

    if (words.unclosed) {
        session_error(session, "a quote or a brace is not closed");
        status = STATUS_USAGE;
        goto out;
    }
    if (words.count > 0 && strcmp(words.list[words.count - 1], "-j") == 0) {
        session->json = true;
        words_remove(&words, words.count - 1);
    } else if (words.count > 0 && strcmp(words.list[0], "-j") == 0) {
        session->json = true;
        words_remove(&words, 0);
    }
    question_to_help(&words);
    if (words.count > 0)
        status = session_run(session, words.list, words.count);
out:
    session->json = json;
    words_free(&words);
    return status;
}

int shell_script(struct session *session, FILE *in, const char *name, bool keep_going) {
    char *line = NULL;
    size_t size = 0;
    int status = STATUS_OK;

    session->shell = true;
    session->script = name;
    while (!session->leave && getline(&line, &size, in) >= 0) {
        session->line++;
        int this = run_line(session, line);
        if (status == STATUS_OK)
            status = this;
        if (status != STATUS_OK && !keep_going)
            break;
    }
    session->script = NULL;
    free(line);
    return status;
}

/* ---- the line editor ---- */

struct shell {
    struct session *session;
    EditLine *editor;
    History *history;
    char prompt[160];
    bool router_known; /* the prompt names the router of the present connection */
};

static struct shell *shell_of(EditLine *editor) {
    void *shell = NULL;
    el_get(editor, EL_CLIENTDATA, &shell);
    return shell;
}

static char *prompt(EditLine *editor) {
    return shell_of(editor)->prompt;
}

/* Says where commands go: this host, and the router that answers at the socket. */
static void update_prompt(struct shell *shell) {
    struct session *session = shell->session;
    char host[HOST_NAME_MAX + 1] = "";
    struct failure failure;

    if (shell->router_known && client_connected(session->client))
        return;
    if (gethostname(host, sizeof(host) - 1) < 0 || host[0] == '\0')
        snprintf(host, sizeof(host), "localhost");
    host[strcspn(host, ".")] = '\0';
    json_t *info = client_call(session->client, "system.info", NULL, PROMPT_TIMEOUT, &failure);
    shell->router_known = info != NULL;
    if (info == NULL) {
        failure_free(&failure);
        snprintf(shell->prompt, sizeof(shell->prompt), "%s (no router)> ", host);
    } else {
        char *name = text_clean(field_text(info, "name"));
        snprintf(shell->prompt, sizeof(shell->prompt), "%s/%.63s> ", host, name);
        free(name);
    }
    json_decref(info);
}

/* Reads one character for libedit: 1, 0 at the end, -1 when the line is to be given up. */
static int read_character(EditLine *editor, wchar_t *out) {
    mbstate_t state = {0};

    for (;;) {
        struct pollfd watch[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                 {.fd = interrupt_fd(), .events = POLLIN}};
        char byte;
        int ready = poll(watch, 2, -1);
        if (interrupt_pending())
            return -1;
        if (ready < 0) {
            el_resize(editor); /* SIGWINCH */
            continue;
        }
        ssize_t got = read(STDIN_FILENO, &byte, 1);
        if (got <= 0)
            return (int)got;
        if (byte == '\0') /* what becomes of a Ctrl-D typed before the editor took over */
            byte = CTRL_D;
        size_t used = mbrtowc(out, &byte, 1, &state);
        if (used == (size_t)-1)
            state = (mbstate_t){0}; /* not UTF-8: leave it out */
        else if (used != (size_t)-2)
            return 1;
    }
}

/* The words before the cursor, the last of them in *partial when it is still being typed. */
static struct words words_before_cursor(EditLine *editor, const char **partial) {
    const LineInfo *line = el_line(editor);
    char *text = strndup(line->buffer, (size_t)(line->cursor - line->buffer));

    if (text == NULL)
        abort();
    struct words words = words_split(text);
    free(text);
    *partial = words.complete || words.count == 0 ? "" : words.list[words.count - 1];
    return words;
}

static struct candidates complete(EditLine *editor, const struct words *words,
                                  const char *partial) {
    struct session *session = shell_of(editor)->session;
    size_t count = words->count - (!words->complete && words->count > 0);

    return command_complete(session->commands, words->list, count, partial, true, session_names,
                            session);
}

static void list_candidates(const struct candidates *candidates) {
    size_t width = 0;

    putchar('\n');
    for (size_t i = 0; i < candidates->count; i++)
        if (strlen(candidates->list[i].text) > width)
            width = strlen(candidates->list[i].text);
    for (size_t i = 0; i < candidates->count; i++) {
        const struct candidate *candidate = &candidates->list[i];
        if (candidate->help != NULL)
            printf("  %-*s  %s\n", (int)width, candidate->text, candidate->help);
        else
            printf("  %s\n", candidate->text);
    }
    fflush(stdout);
}

/* Inserts text as a shell word: blanks and quotes get a backslash. */
static void insert(EditLine *editor, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        char piece[3] = {text[i], '\0', '\0'};
        if (strchr(" \t'\"\\#", text[i])) {
            piece[0] = '\\';
            piece[1] = text[i];
        }
        el_insertstr(editor, piece);
    }
}

/* TAB: inserts what is certain; when that is nothing, shows the choice. */
static unsigned char key_complete(EditLine *editor, int key) {
    const char *partial;
    struct words words = words_before_cursor(editor, &partial);
    struct candidates candidates = complete(editor, &words, partial);
    size_t typed = strlen(partial), common = candidates_common(&candidates), insertable = 0;
    const struct candidate *last = NULL;
    unsigned char answer = CC_REFRESH;

    (void)key;
    for (size_t i = 0; i < candidates.count; i++)
        if (candidates.list[i].insertable) {
            last = &candidates.list[i];
            insertable++;
        }
    if (insertable > 0 && common > typed)
        insert(editor, last->text + typed, common - typed);
    if (insertable == 1 && candidates.count == 1) {
        if (!last->unfinished)
            el_insertstr(editor, " ");
    } else if (candidates.count > 0 && common <= typed) {
        list_candidates(&candidates);
        answer = CC_REDISPLAY;
    } else if (candidates.count == 0) {
        answer = CC_REFRESH_BEEP;
    }
    candidates_free(&candidates);
    words_free(&words);
    return answer;
}

/* "?": shows what may come next, without leaving the line. Inside quotes it is just a character. */
static unsigned char key_help(EditLine *editor, int key) {
    const char *partial;
    struct words words = words_before_cursor(editor, &partial);
    unsigned char answer = CC_REDISPLAY;

    if (words.unclosed) {
        char text[2] = {(char)key, '\0'};
        el_insertstr(editor, text);
        answer = CC_REFRESH;
    } else {
        struct candidates candidates = complete(editor, &words, partial);
        if (candidates.count == 0)
            candidates_add(&candidates, "<Enter>", NULL);
        printf("?");
        list_candidates(&candidates);
        candidates_free(&candidates);
    }
    words_free(&words);
    return answer;
}

static char *history_file(void) {
    const char *home = getenv("HOME");
    char *path;

    if (home == NULL || *home == '\0' || asprintf(&path, "%s/.routerctl_history", home) < 0)
        return NULL;
    return path;
}

/* Only makes poll() return, so that the editor can look at the new size. */
static void window_changed(int number) {
    (void)number;
}

static void editor_start(struct shell *shell, const char *history_path) {
    struct sigaction action = {.sa_handler = window_changed, .sa_flags = SA_RESTART};
    HistEvent event;

    sigemptyset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
    shell->editor = el_init("routerctl", stdin, stdout, stderr);
    shell->history = history_init();
    if (shell->editor == NULL || shell->history == NULL)
        abort();
    history(shell->history, &event, H_SETSIZE, HISTORY_SIZE);
    history(shell->history, &event, H_SETUNIQUE, 1);
    if (history_path != NULL)
        history(shell->history, &event, H_LOAD, history_path);
    el_set(shell->editor, EL_CLIENTDATA, shell);
    el_set(shell->editor, EL_PROMPT, prompt);
    el_set(shell->editor, EL_EDITOR, "emacs");
    el_set(shell->editor, EL_HIST, history, shell->history);
    el_set(shell->editor, EL_GETCFN, read_character);
    el_set(shell->editor, EL_ADDFN, "routerctl-complete", "Completes the word", key_complete);
    el_set(shell->editor, EL_ADDFN, "routerctl-help", "Shows what may follow", key_help);
    el_set(shell->editor, EL_BIND, "^I", "routerctl-complete", NULL);
    el_set(shell->editor, EL_BIND, "?", "routerctl-help", NULL);
    el_set(shell->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(shell->editor, NULL); /* ~/.editrc */
}

static void editor_end(struct shell *shell, const char *history_path) {
    HistEvent event;

    if (history_path != NULL) {
        mode_t mask = umask(S_IRWXG | S_IRWXO); /* a command may hold a key */
        history(shell->history, &event, H_SAVE, history_path);
        umask(mask);
    }
    history_end(shell->history);
    el_end(shell->editor);
}

/* Adds a line to the history, without the blanks that completion leaves behind it. */
static void remember(struct shell *shell, const char *line) {
    size_t length = strlen(line);
    HistEvent event;

    while (length > 0 && strchr(" \t\n", line[length - 1]))
        length--;
    char *text = strndup(line, length);
    if (text != NULL && length > 0)
        history(shell->history, &event, H_ENTER, text);
    free(text);
}

int shell_interactive(struct session *session) {
    struct shell shell = {.session = session};
    char *history_path = history_file();
    int length;

    session->shell = true;
    interrupt_catch();
    editor_start(&shell, history_path);
    puts("? shows what may follow, TAB completes, help lists all commands, exit leaves.");
    while (!session->leave && !interrupt_ends_program()) {
        interrupt_clear();
        update_prompt(&shell);
        const char *line = el_gets(shell.editor, &length);
        if (line == NULL || length <= 0) {
            putchar('\n');
            if (interrupt_pending())
                continue; /* Ctrl-C drops the line, not the shell */
            break;        /* Ctrl-D */
        }
        remember(&shell, line);
        run_line(session, line);
        if (interrupt_pending())
            putchar('\n');
        fflush(stdout);
    }
    editor_end(&shell, history_path);
    free(history_path);
    return STATUS_OK;
}
