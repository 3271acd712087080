package vrf

// SetWatchBuffer makes Watch start with an event buffer of size bytes.
func (k *Kernel) SetWatchBuffer(size int) { k.watchSize = size }
