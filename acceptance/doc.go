// Package acceptance holds the tests that see Egret as its users do: the real
// binary with a real configuration file, between real FRR and BIRD routers, on
// a real kernel. They assert on what the routers' RIBs and the far servers saw.
//
// They need VRFs, nftables, FRR and BIRD (see lab.Require), and the binary at
// EGRET_BIN, by default bin/egret in the module's root; what they upgrade to is
// at EGRET_NEXT_BIN, by default bin/egret-next.
package acceptance
