import Rendering
import Reports

extension TenantReport {
    static func table(_ tenants: [TenantReport]) -> String {
        var table = TextTable(.left("NAME"), .left("ENCRYPTED"), .left("CREATED"))
        for tenant in tenants {
            let state = !tenant.unlocked ? "yes, locked" : tenant.earlierKeys == true ? "yes, partly with an earlier key" : "yes"
            table.append(tenant.name, tenant.encrypted ? state : "no", tenant.created)
        }
        return table.text()
    }
}
