/* SPDX-License-Identifier: BSD-2-Clause */
/* How many clients each source address has in the relay. */
#include "relay/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/random.h"

#define BUCKETS 1024

struct source {
	struct source *next;
	__u8 key[16];
	unsigned int n;
};

struct relay_sources {
	pthread_mutex_t lock;
	__u64 seed; /* so that nobody can choose addresses that meet in one bucket */
	struct source *at[BUCKETS];
};

struct relay_sources *sources_new(void)
{
	struct relay_sources *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	pthread_mutex_init(&s->lock, NULL);
	s->seed = random_u64();
	return s;
}

void sources_free(struct relay_sources *s)
{
	if (!s)
		return;
	for (unsigned int i = 0; i < BUCKETS; i++)
		while (s->at[i]) {
			struct source *next = s->at[i]->next;

			free(s->at[i]);
			s->at[i] = next;
		}
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* One host has a whole /64 of IPv6 to choose its address from. */
static void make_key(const __u8 addr[16], __u8 key[16])
{
	static const __u8 mapped[12] = { [10] = 0xff, 0xff };

	memcpy(key, addr, 16);
	if (memcmp(addr, mapped, sizeof(mapped)) != 0)
		memset(key + 8, 0, 8);
}

static struct source **find(struct relay_sources *s, const __u8 key[16])
{
	struct source **at = &s->at[hash_bytes(s->seed, key, 16) % BUCKETS];

	while (*at && memcmp((*at)->key, key, 16) != 0)
		at = &(*at)->next;
	return at;
}

bool sources_take(struct relay_sources *s, const __u8 addr[16], unsigned int limit)
{
	struct source **at;
	__u8 key[16];
	bool taken = false;

	make_key(addr, key);
	pthread_mutex_lock(&s->lock);
	at = find(s, key);
	if (!*at) {
		*at = calloc(1, sizeof(**at));
		if (*at)
			memcpy((*at)->key, key, sizeof(key));
	}
	if (*at && (!limit || (*at)->n < limit)) {
		(*at)->n++;
		taken = true;
	}
	pthread_mutex_unlock(&s->lock);
	return taken;
}

void sources_give_back(struct relay_sources *s, const __u8 addr[16])
{
	struct source **at, *gone = NULL;
	__u8 key[16];

	make_key(addr, key);
	pthread_mutex_lock(&s->lock);
	at = find(s, key);
	if (*at && !--(*at)->n) {
		gone = *at;
		*at = gone->next;
	}
	pthread_mutex_unlock(&s->lock);
	free(gone);
}
