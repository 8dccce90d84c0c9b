/*
 * The table of all commands. A new command is a row here, and a function where its result needs a
 * form of its own. The order is the order of help and of completion.
 */
#include "commands.h"

#define ROUTE_VIA                       \
    "route add PREFIX via ADDRESS:via " \
    "[interface INTERFACE|weight WEIGHT|vrf VRF|via ADDRESS:via]..."

#define SESSION_FILTERS                                                                 \
    "address (ADDRESS|PREFIX:address)|port PORT|protocol PROTOCOL|interface INTERFACE|" \
    "state STATE|vrf VRF"

/* clang-format off */
const struct command commands[] = {
    {"show", "Show the router's state", .flags = COMMAND_GROUP},
    {"show system", "Show versions, uptime and lcores", "system.info", .render = show_system},
    {"show interfaces [INTERFACE:name] [live]", "List interfaces, show one, or watch their traffic",
     "interface.list", .run = run_show_interfaces},
    {"show routes {vrf VRF|(ipv4:family|ipv6:family)|(PREFIX|[to] ADDRESS:covering)}",
     "List routes, or the route that an address takes", "route.list", .run = run_show_routes},
    {"show neighbours [INTERFACE]", "List ARP and ND entries", "neighbour.list", .render = show_neighbours},
    {"show sessions {" SESSION_FILTERS "|live}", "List sessions, or watch the busiest ones",
     "session.list", .run = run_show_sessions},
    {"show sessions summary", "Count sessions by state", "session.count", .render = show_session_counts},
    {"show firewall", "List the firewall's rules and what they counted", "firewall.list",
     .render = show_firewall},
    {"show nat", "List NAT rules with their present addresses", "nat.list", .render = show_nat},
    {"show ipsec", "List IPsec's security associations and policies", "ipsec.sa.list",
     .run = run_show_ipsec},
    {"show stats {interval SECONDS:interval|count COUNT}", "Show counters, or watch rates",
     "stats.get", .run = run_show_stats},
    {"show drops [all]", "Show dropped packets by stage and reason", "stats.get", .run = run_show_drops},
    {"show runtime", "Show where the workers spend their cycles", "runtime.get", .render = show_runtime},
    {"show log [follow]", "Show the latest log lines, or follow the log", "log.list", .run = run_show_log},
    {"show config", "Show the running configuration", "config.get", .render = show_config},
    {"show methods", "List the router's JSON-RPC methods", "system.methods", .render = show_methods},

    {"config", "Check, apply and save the configuration", .flags = COMMAND_GROUP},
    {"config check FILE", "Check a configuration file, change nothing", "config.check",
     .run = run_config_check, .flags = COMMAND_SLOW},
    {"config diff FILE", "Show what applying a file would change", "config.diff",
     .run = run_config_diff, .flags = COMMAND_SLOW},
    {"config apply FILE [confirm SECONDS:confirm_timeout]",
     "Apply a file, for SECONDS unless confirmed", "config.apply",
     .run = run_config_apply, .flags = COMMAND_SLOW},
    {"config confirm", "Keep the configuration applied with confirm", "config.confirm",
     .render = show_confirmed},
    {"config rollback", "Go back to the configuration before", "config.rollback",
     .render = show_rolled_back, .flags = COMMAND_SLOW},
    {"config save [FILE]", "Write the running configuration to a file", "config.save",
     .run = run_config_save, .flags = COMMAND_SLOW},

    {"route", "Add and delete routes", .flags = COMMAND_GROUP},
    {ROUTE_VIA, "Add a route through one or more next hops", "route.add", .run = run_route_add},
    {"route add PREFIX interface INTERFACE [vrf VRF]", "Add a route to an attached network",
     "route.add", .run = run_route_add},
    {"route add PREFIX (blackhole|unreachable|prohibit) [vrf VRF]",
     "Add a route that discards, or refuses by ICMP", "route.add", .run = run_route_add},
    {"route delete PREFIX [vrf VRF]", "Delete a route added at run time", "route.delete",
     .render = show_count},
    {"route load FILE", "Add many routes from a file", "route.add", .run = run_route_load,
     .flags = COMMAND_SLOW},

    {"neighbour", "Add, delete and flush ARP and ND entries", .flags = COMMAND_GROUP},
    {"neighbour add INTERFACE ADDRESS MAC", "Add a static entry", .method = "neighbour.add"},
    {"neighbour delete INTERFACE ADDRESS", "Delete an entry", .method = "neighbour.delete"},
    {"neighbour flush [INTERFACE]", "Forget all learned entries", "neighbour.flush", .render = show_count},

    {"ipsec", "Add and delete IPsec's associations and policies", .flags = COMMAND_GROUP},
    {"ipsec sa add FILE", "Add the associations of a JSON file", "ipsec.sa.add",
     .run = run_ipsec_add},
    {"ipsec sa delete (in:direction|out:direction) SPI [to ADDRESS:destination]",
     "Delete an association added at run time", "ipsec.sa.delete", .run = run_ipsec_sa_delete},
    {"ipsec policy add FILE", "Add the policies of a JSON file", "ipsec.policy.add",
     .run = run_ipsec_add},
    {"ipsec policy delete WORD:name", "Delete a policy added at run time",
     .method = "ipsec.policy.delete"},

    {"interface", "Switch interfaces on and off", .flags = COMMAND_GROUP},
    {"interface up:admin INTERFACE:name", "Switch an interface on", .method = "interface.set"},
    {"interface down:admin INTERFACE:name", "Switch an interface off",
     .method = "interface.set"},

    {"clear", "Reset counters, end sessions", .flags = COMMAND_GROUP},
    {"clear sessions {" SESSION_FILTERS "}", "End these sessions; without a filter, all",
     "session.flush", .render = show_count},
    {"clear stats", "Set all counters to zero", .method = "stats.clear"},

    {"call METHOD [JSON]", "Call a JSON-RPC method and print its result", .run = run_call},
    {"completion bash", "Print a completion script for bash", .run = run_completion_bash},
    {"complete-words WORD", "List what may come next (for the script)", .run = run_complete_words,
     .flags = COMMAND_HIDDEN},
    {"help [WORD:word]...", "List commands; with words, those that start so", .run = run_help},
    {"exit", "Leave the shell (also Ctrl-D)", .run = run_exit, .flags = COMMAND_SHELL},
    {"quit", "Leave the shell", .run = run_exit, .flags = COMMAND_SHELL | COMMAND_HIDDEN},
};
/* clang-format on */

const size_t command_count = sizeof(commands) / sizeof(commands[0]);
