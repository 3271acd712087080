package probes

import (
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cost is what probing has taken. It is of the goroutine that tries targets of
// the types icmp and arp-nd, with the kernel's part of sending and receiving,
// and that begins the attempts of the other types. What those do afterwards, and
// what it takes to wake the goroutine (another third), is in the processor time
// of the process only.
type Cost struct {
	Since time.Time
	// CPU is processor time: one in meterEvery wakeups is measured.
	CPU time.Duration
	// Attempts counts those of the types icmp and arp-nd.
	Attempts uint64
}

// Cost is what all probes together have taken since New.
func (p *Prober) Cost() Cost {
	return Cost{Since: p.started, CPU: time.Duration(p.clock.spent.Load()), Attempts: p.pinger.attempts.Load()}
}

// meterEvery is how many wakeups there are for one that is measured: measuring
// each of them would add a twentieth to the cost.
const meterEvery = 8

// metered is the processor time that work takes, in nanoseconds. Work must not
// wait: it would keep a thread for itself meanwhile.
func metered(work func()) int64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := threadTime()
	work()
	return threadTime() - begin
}

// threadTime is the processor time of this thread in nanoseconds, by a call that
// Go's scheduler does not hear of; see rawio.go.
func threadTime() int64 {
	var t unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0
	}
	return t.Nano()
}
