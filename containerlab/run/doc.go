// Command run brings up the containerlab topology of this folder and checks
// what its clients see.
//
//	run vm        build everything, and run "check" inside a virtual machine (the default)
//	run images    build the images and load them into this machine's Docker
//	run check     deploy with this machine's Docker, check, destroy
//	run guest     what "vm" starts within the machine: a Docker of its own, then "check"
//
// Nothing is pulled: images are made of egret, built from this tree, and of
// this machine's own FRR, BIRD, nft, iproute2 and busybox with the libraries
// they need. containerlab itself is built from the module in ../tools and kept
// in the user's cache directory.
//
// The exit code is 0 if every check passed; a failure prints the logs of all
// nodes.
package main
