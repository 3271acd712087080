package nat

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// spreadSeed seeds the hash by which a spread chooses. It is another one than
// bucketSeed, else the clients of one exit would hash to a part of a pool only.
// It never changes, so that a client keeps its exit over restarts and versions.
const spreadSeed = 0x73707264

// ClientBucket is the bucket, of n, that a client has in a Spread: the same that
// the kernel computes. n is at least 1.
func ClientBucket(client netip.Addr, n int) int { return bucket(client, n, spreadSeed) }

// PoolBucket is the bucket, of n, that a client has in a Pool that is not
// PerFlow: the same that the kernel computes. n is at least 1.
func PoolBucket(client netip.Addr, n int) int { return bucket(client, n, bucketSeed) }

// bucket is the kernel's nft_jhash_eval: the hash scaled to n by its high bits
// (reciprocal_scale).
func bucket(client netip.Addr, n int, seed uint32) int {
	h := jhash(client.WithZone("").Unmap().AsSlice(), seed)
	return int(uint64(h) * uint64(max(n, 1)) >> 32)
}

// jhash is the kernel's function of that name (include/linux/jhash.h), which is
// lookup3 by Bob Jenkins: whole blocks of 12 bytes are read in the machine's
// byte order, the last 1 to 12 bytes as little endian.
func jhash(key []byte, seed uint32) uint32 {
	a := 0xdeadbeef + uint32(len(key)) + seed
	b, c := a, a
	for ; len(key) > 12; key = key[12:] {
		a += binary.NativeEndian.Uint32(key)
		b += binary.NativeEndian.Uint32(key[4:])
		c += binary.NativeEndian.Uint32(key[8:])
		a, b, c = jhashMix(a, b, c)
	}
	if len(key) == 0 {
		return c
	}
	var last [12]byte
	copy(last[:], key)
	a += binary.LittleEndian.Uint32(last[0:])
	b += binary.LittleEndian.Uint32(last[4:])
	c += binary.LittleEndian.Uint32(last[8:])
	return jhashFinal(a, b, c)
}

func jhashMix(a, b, c uint32) (uint32, uint32, uint32) {
	a = (a - c) ^ bits.RotateLeft32(c, 4)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 6)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 8)
	b += a
	a = (a - c) ^ bits.RotateLeft32(c, 16)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 19)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

func jhashFinal(a, b, c uint32) uint32 {
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	return (c ^ b) - bits.RotateLeft32(b, 24)
}
