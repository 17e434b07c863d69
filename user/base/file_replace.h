/* SPDX-License-Identifier: BSD-2-Clause */
/* Replaces a small file. */
#ifndef KUBELB_FILE_REPLACE_H
#define KUBELB_FILE_REPLACE_H

#include "base/err.h"

/*
 * Replaces the file by text, with mode 0600, in one step: whoever reads it finds the old text or
 * the new one. Makes the folder, with mode 0700, if that is missing alone. path: absolute. cure:
 * what to do if the folder cannot be made, for the message. Waits for the disk. Returns 0 or a
 * negative errno with e.
 */
int file_replace(const char *path, const char *text, const char *cure, struct err *e);

#endif
