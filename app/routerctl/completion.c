/*
 * Completion in bash: a short script that hands the line up to the cursor to "routerctl
 * complete-words", which knows the commands and asks the router for names. So the script never
 * grows old.
 */
#include "commands.h"
#include "session.h"
#include "words.h"

#include <stdio.h>
#include <string.h>

/* Each line of complete-words is "KIND<TAB>TEXT". Bash replaces only what stands behind the last of
 * its COMP_WORDBREAKS (a colon, say), so the part before it is cut from each text. */
static const char bash_script[] =
    "# Completion of routerctl in bash; made by: routerctl completion bash\n"
    "_routerctl() {\n"
    "    local line=${COMP_LINE:0:COMP_POINT} kind text\n"
    "    local last=${line##*[[:space:]]} word=${COMP_WORDS[COMP_CWORD]}\n"
    "    [[ $word == [:=] ]] && word=\n"
    "    local cut=${last%\"$word\"}\n"
    "    COMPREPLY=()\n"
    "    while IFS=$'\\t' read -r kind text; do\n"
    "        COMPREPLY+=(\"${text#\"$cut\"}\")\n"
    "        [[ $kind == file ]] && compopt -o filenames\n"
    "        [[ $text == */ ]] && compopt -o nospace\n"
    "    done < <(\"${COMP_WORDS[0]}\" complete-words \"$line\" 2>/dev/null)\n"
    "}\n"
    "complete -F _routerctl routerctl\n";

int run_completion_bash(struct session *session, const struct match *match) {
    (void)session;
    (void)match;
    fputs(bash_script, stdout);
    return STATUS_OK;
}

/* Takes the program's name and options off the front. Returns whether the cursor stands behind
 * "-s", where a file is wanted; sets the socket that the line names. */
static bool skip_options(struct session *session, struct words *words) {
    bool file = false;

    if (words->count > 0)
        words_remove(words, 0);
    while (words->count > 0 && words->list[0][0] == '-') {
        const char *option = words->list[0];
        bool socket = strncmp(option, "-s", 2) == 0;
        const char *path = socket && option[2] ? option + 2 : NULL;
        bool separate = socket && path == NULL;
        if (words->count == 1 && !words->complete)
            break; /* the option itself is being typed */
        if (separate && words->count > 1 && (words->count > 2 || words->complete))
            path = words->list[1];
        if (path != NULL) {
            client_free(session->client);
            session->client = client_new(path);
        }
        words_remove(words, 0);
        file = separate && path == NULL;
        if (separate && path != NULL)
            words_remove(words, 0);
        if (file)
            break;
    }
    return file;
}

int run_complete_words(struct session *session, const struct match *match) {
    struct words words = words_split(match_value(match, "word"));
    struct candidates candidates = {0};
    bool file = skip_options(session, &words);
    const char *partial = "";
    size_t before = words.count;

    if (!words.complete && before > 0)
        partial = words.list[--before];
    if (file)
        session_names(session, ARGUMENT_FILE, partial, &candidates);
    else
        candidates = command_complete(session->commands, words.list, before, partial, false,
                                      session_names, session);
    for (size_t i = 0; i < candidates.count; i++)
        if (candidates.list[i].insertable)
            printf("%s\t%s\n", candidates.list[i].file ? "file" : "word", candidates.list[i].text);
    candidates_free(&candidates);
    words_free(&words);
    return STATUS_OK;
}
