/*
 * The firewall: rules that say which conversations may begin. It meets the router as the section
 * "firewall", the stage `firewall` and the method firewall.list; established flows are known to
 * lib/session and never come here.
 *
 * The files: firewall_rules.c is the domain (rules, their classifier, their counters);
 * firewall_stage.c applies it to a burst; firewall_reset.c answers refused TCP segments;
 * firewall_reevaluate.c looks again at live sessions after the rules have changed.
 */
#pragma once

#include <stdbool.h>

/* Is a firewall in force? From the section's commit on. Control thread. */
bool firewall_wanted(void);
