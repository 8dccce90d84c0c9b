/*
 * The table of all commands (commands.c) and the functions that it names.
 */
#pragma once

#include "command.h"

extern const struct command commands[];
extern const size_t command_count;

/* Each run_ function does a whole command and returns its exit status; each show_ function prints
 * the result of a method (a json_t *) for people. Missing members are shown as "-". */

/* show_system.c */
void show_system(struct session *session, const struct match *match, const void *result);
void show_methods(struct session *session, const struct match *match, const void *result);
void show_config(struct session *session, const struct match *match, const void *result);

/* show_interfaces.c */
int run_show_interfaces(struct session *session, const struct match *match);

/* show_routes.c */
int run_show_routes(struct session *session, const struct match *match);

/* show_neighbours.c */
void show_neighbours(struct session *session, const struct match *match, const void *result);

/* show_sessions.c */
int run_show_sessions(struct session *session, const struct match *match);
void show_session_counts(struct session *session, const struct match *match, const void *result);

/* show_firewall.c */
void show_firewall(struct session *session, const struct match *match, const void *result);

/* show_nat.c */
void show_nat(struct session *session, const struct match *match, const void *result);

/* show_ipsec.c */
int run_show_ipsec(struct session *session, const struct match *match);

/* ipsec.c */
int run_ipsec_add(struct session *session, const struct match *match);
int run_ipsec_sa_delete(struct session *session, const struct match *match);

/* show_stats.c */
int run_show_stats(struct session *session, const struct match *match);
int run_show_drops(struct session *session, const struct match *match);

/* show_runtime.c */
void show_runtime(struct session *session, const struct match *match, const void *result);

/* show_log.c */
int run_show_log(struct session *session, const struct match *match);

/* config.c */
int run_config_check(struct session *session, const struct match *match);
int run_config_diff(struct session *session, const struct match *match);
int run_config_apply(struct session *session, const struct match *match);
void show_confirmed(struct session *session, const struct match *match, const void *result);
void show_rolled_back(struct session *session, const struct match *match, const void *result);
int run_config_save(struct session *session, const struct match *match);

/* route.c */
int run_route_add(struct session *session, const struct match *match);
int run_route_load(struct session *session, const struct match *match);

/* raw.c */
int run_call(struct session *session, const struct match *match);
void show_count(struct session *session, const struct match *match, const void *result);

/* help.c */
int run_help(struct session *session, const struct match *match);
int run_exit(struct session *session, const struct match *match);

/* completion.c */
int run_completion_bash(struct session *session, const struct match *match);
int run_complete_words(struct session *session, const struct match *match);
