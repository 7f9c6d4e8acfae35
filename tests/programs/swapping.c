/* Swaps names again and again as fast as it can, until its input ends; prints how often it did.
 *
 *   exchange A B       renames each to the other in one step
 *   move A B           renames A to B, and back
 *   replace A TO KEPT  makes A a symbolic link to TO, then a hard link to KEPT, each anew
 *   cover A            mounts something on A, in a mount namespace of its own, and unmounts it
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static int swap(char **names, const char *kind)
{
	if (!strcmp(kind, "exchange"))
		return renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0;
	if (!strcmp(kind, "move"))
		return (rename(names[0], names[1]) == 0) + (rename(names[1], names[0]) == 0);
	if (!strcmp(kind, "cover")) {
		int covered = mount("none", names[0], "tmpfs", 0, "size=4k") == 0;
		return covered + (umount2(names[0], MNT_DETACH) == 0);
	}
	unlink(names[0]);
	int linked = symlink(names[1], names[0]) == 0;
	unlink(names[0]);
	return linked + (link(names[2], names[0]) == 0);
}

int main(int count, char **arguments)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	long swaps = 0;

	if (count < 3 || (!strcmp(arguments[1], "cover") && unshare(CLONE_NEWUSER | CLONE_NEWNS)))
		return 2;
	while (poll(&input, 1, 0) == 0)
		for (int turn = 0; turn < 64; turn++)
			swaps += swap(arguments + 2, arguments[1]);
	printf("%ld\n", swaps);
	return 0;
}
