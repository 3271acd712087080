package nat

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Problems describes what others do to the packet filter that could hurt our
// traffic, as text for people; nothing is changed. It costs one listing of
// chains. What it cannot read it reports as a problem too.
func (t *Table) Problems(ctx context.Context) []string {
	out, err := t.run(ctx, false, "", "-j", "list", "chains")
	if err != nil {
		return []string{fmt.Sprintf("cannot look for conflicts in nftables: %v", err)}
	}
	problems, err := chainProblems(out)
	if err != nil {
		problems = append(problems, fmt.Sprintf("cannot look for conflicts in nftables: %v", err))
	}
	// The file names the tables of iptables-legacy, one to a line; it is missing
	// where that was never used.
	if names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names"); err == nil {
		problems = append(problems, legacyProblems(string(names))...)
	}
	return problems
}

// agentTable is that of the agent on the same node (egress/steer), which binds only
// what leaves by a tunnel.
const agentTable = "egret_agent"

func chainProblems(data []byte) ([]string, error) {
	var list listing
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("parse nft listing: %w", err)
	}
	var problems []string
	for _, entry := range list.Nftables {
		raw, ok := entry[kindChain]
		if !ok {
			continue
		}
		var c struct {
			jsonObject
			Family string `json:"family"`
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			return problems, fmt.Errorf("parse nft listing: chain: %w", err)
		}
		if c.Hook == "" || c.Family == family && (c.Table == tableName || c.Table == agentTable) || !slices.Contains([]string{"ip", "ip6", "inet"}, c.Family) {
			continue
		}
		where := fmt.Sprintf("chain %s %s %s", c.Family, c.Table, c.Name)
		switch {
		case c.Policy == "drop" && c.Hook == "forward":
			problems = append(problems, where+" has policy drop in forward: client traffic that it does not accept is lost (Docker does this; accept the client interfaces in DOCKER-USER)")
		case c.Policy == "drop" && (c.Hook == "prerouting" || c.Hook == "postrouting"):
			problems = append(problems, where+" has policy drop in "+c.Hook+": traffic that it does not accept is lost")
		case c.typeName() == "nat" && c.Hook == "postrouting" && c.Prio <= priorityTranslate:
			problems = append(problems, fmt.Sprintf("%s translates at priority %d, before ours (%d): traffic that it translates is dropped at the uplink", where, c.Prio, priorityTranslate))
		}
	}
	return problems, nil
}

func legacyProblems(names string) []string {
	if slices.Contains(strings.Fields(names), "filter") {
		return []string{"iptables-legacy has a filter table: the policy of its FORWARD chain cannot be seen from here"}
	}
	return nil
}
