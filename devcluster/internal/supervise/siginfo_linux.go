package supervise

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPID reads si_pid, the first field of the union behind the fixed part of siginfo_t, which
// the unix package leaves opaque. On 64-bit machines the union begins at byte 16.
func siginfoPID(info *unix.Siginfo) int {
	const unionOffset = 16
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), unionOffset)))
}
