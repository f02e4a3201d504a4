/*
 * Signals, for a process that may be PID 1: the kernel drops what PID 1 has no handler for. Held signals are
 * never dropped; they are read from a descriptor, with their sender, when there is time for them. Nothing is
 * ever set to "ignore": that would be inherited by the command.
 */
#ifndef STEPMEMO_SIGNALS_H
#define STEPMEMO_SIGNALS_H

#include <stdbool.h>
#include <sys/signalfd.h>

/* From here on signals are held, all but those that a fault of ours raises. False (and said) when the kernel
 * cannot do it; they are then as before. */
bool signals_hold(void);
/* As it was before signals_hold: for a child, or before another program takes over. */
void signals_release(void);

/* The descriptor that is readable when a signal is there; -1 unless they are held. */
int signals_fd(void);
/* Takes the next one; false when there is none. One that we raised ourselves (SIGPIPE) is passed over. */
bool signals_next(struct signalfd_siginfo *signal);

/*
 * Who asks us to stop; the greater one outweighs the other. The container runtime's signal comes from outside
 * the Pod's PID namespace, so its sender has PID 0 here; Argo's comes from an `argoexec kill` inside a
 * container. That holds with shareProcessNamespace too (Argo's then hits the pause container and never us).
 * With hostPID the runtime looks like Argo, which costs at most the Pod's grace period, after main containers
 * that succeeded.
 */
enum asked { NOT_ASKED, ASKED_BY_ARGO, ASKED_BY_RUNTIME };

/* SIGTERM and the others that ask a program to end. */
bool signal_asks_to_stop(const struct signalfd_siginfo *signal);
enum asked signal_asks(const struct signalfd_siginfo *signal);
/* Takes all that are there; the number of one that asks to stop, or 0. */
int signals_asked_to_stop(void);

#endif
