/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent as the data path: it relays connects to the frontends where the kernel does not rewrite
 * them, and, whoever is the data path, those that come from other machines (scope: network).
 */
#ifndef KUBELB_AGENT_DATA_PATH_H
#define KUBELB_AGENT_DATA_PATH_H

#include "config/config.h"
#include "relay/relay.h"

struct worker;

/* A frontend that the agent listens on, or should. */
struct agent_listener {
	struct config_frontend frontend;
	struct config_access access;
	enum relay_from from;
	struct relay_listener *listener; /* NULL: not yet, see error */
	char error[ERR_TEXT_MAX]; /* as logged; "": none */
};

/* An operator's setting for a backend. */
struct agent_setting {
	struct klb_endpoint backend;
	struct klb_admin admin; /* generation does not count */
};

struct agent_data_path {
	bool relaying; /* the agent is the data path */
	char refused[ERR_TEXT_MAX]; /* why the kernel is not, with dataPath: auto; "": it can be */
	struct agent_listener listeners[KLB_MAX_FRONTENDS];
	unsigned int n_listeners;
	struct agent_setting settings[KLB_MAX_IDS]; /* the operator's, while there are no maps */
	unsigned int n_settings;
	bool settings_read;
	struct worker *saving; /* writes them */
	bool save_again; /* they have changed since */
	char settings_error[ERR_TEXT_MAX], relay_error[ERR_TEXT_MAX]; /* as logged */
};

#endif
