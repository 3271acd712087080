package vrf

// SetWatchBuffer makes Watch start with an event buffer of size bytes.
func (k *Kernel) SetWatchBuffer(size int) { k.watchSize = size }

// Requests counts the requests for changes of addresses and routing sent so far.
func (k *Kernel) Requests() uint64 { return k.requests.Load() }

// MaxBulk is how many routes are sent together.
const MaxBulk = maxBulk
