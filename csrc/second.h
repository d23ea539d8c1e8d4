/* SPDX-License-Identifier: Apache-2.0 */
/* second.c: the keeper's second, which keeps the container where the keeper is killed. */
#ifndef ECI_SECOND_H
#define ECI_SECOND_H

int second_start(const char *log);
int second_begin(int keeper, const char *log);
void second_dismiss(int second);

#endif
