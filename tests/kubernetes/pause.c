// SPDX-License-Identifier: Apache-2.0
// The pause image of clusters: waits for SIGTERM or SIGINT, and leaves no zombies as PID 1.
#include <signal.h>
#include <unistd.h>

static void end(int signal) {
  (void)signal;
  _exit(0);
}

int main(void) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  signal(SIGCHLD, SIG_IGN);
  for (;;) pause();
}
