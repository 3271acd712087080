package cluster

// Validate finds what is wrong with the objects of a Snapshot, sorted by object.
// It is the whole of what cannot be said in a schema: what depends on other
// objects, and what the validator of the configuration says of networks and pools.
// Nothing of it concerns an object that does not refer to the one that is wrong.
func Validate(s Snapshot, mode Mode) []Problem {
	l := newLookup(&s)
	c := newChecks(&s, l)
	var problems []Problem
	for i := range s.Networks {
		problems = append(problems, c.network(&s.Networks[i]).problems...)
	}
	problems = append(problems, c.conflicts()...)
	for i := range s.Pools {
		problems = append(problems, c.poolProblems(&s.Pools[i])...)
	}
	for i := range s.Gateways {
		problems = append(problems, c.gatewayProblems(&s.Gateways[i])...)
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		_, wrong := compilePolicy(p)
		r := &reporter{kind: KindPolicy, name: p.Name}
		compileClients(p, r)
		problems = append(append(problems, wrong...), r.problems...)
	}
	b := newBinder(&s, l, mode, nil)
	for i := range s.Namespaces {
		b.ofNamespace(s.Namespaces[i].Name)
	}
	for i := range s.Pods {
		b.of(&s.Pods[i])
	}
	return sortProblems(append(problems, b.problems...))
}
