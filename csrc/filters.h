/* SPDX-License-Identifier: Apache-2.0 */
/* Which process of ours may make which system calls; see filters.c.  0 or -errno. */
#ifndef ECI_FILTERS_H
#define ECI_FILTERS_H

int filter_worker(void);
int filter_view(void);
int filter_view_keeper(void);
int filter_keeper(void);
int filter_proxy(void);
int filter_hook(void);
int filter_cleanup(void);

#endif
