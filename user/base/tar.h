/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes a tar archive (POSIX.1-1988, ustar), which every tar reads. */
#ifndef KUBELB_TAR_H
#define KUBELB_TAR_H

#include <stddef.h>
#include <stdio.h>
#include <time.h>

/* name: with folders, at most 99 bytes. The file's mode is 0600. Look at ferror(to) at the end. */
void tar_add(FILE *to, const char *name, const void *bytes, size_t length, time_t when);
/* The archive's end. */
void tar_end(FILE *to);

#endif
