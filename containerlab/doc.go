// Package containerlab holds containerlab topologies with Egret in them; its
// tests check these without running them. The program in run/ runs them.
package containerlab
